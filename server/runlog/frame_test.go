package runlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// appendFrame appends a whole frame to b, with the checksum of all that it has.
func appendFrame(b []byte, seed uint32, f frame) []byte {
	start := len(b)
	b = append(appendHead(b, seed, f, 0), f.data...)
	binary.LittleEndian.PutUint32(b[start:], crc32.Update(seed, castagnoli, b[start+4:]))
	return b
}

func TestFrameRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := frame{kind: kindData, off: rapid.Int64Range(0, 1<<62).Draw(t, "off")}
		want.data = rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "data")
		seed := rapid.Uint32().Draw(t, "seed")
		raw := appendFrame(nil, seed, want)
		got, ok := decodeFrame(append(raw, "what follows"...), seed)
		if !ok || got.kind != want.kind || got.off != want.off || !bytes.Equal(got.data, want.data) || got.size() != len(raw) {
			t.Fatalf("%+v, %v, want %+v", got, ok, want)
		}
		if _, ok := decodeFrame(raw, seed+1); ok {
			t.Fatal("good in another log")
		}
		raw[rapid.IntRange(0, len(raw)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if f, ok := decodeFrame(raw, seed); ok {
			t.Fatalf("a flipped bit is not seen: %+v", f)
		}
	})
}

// A disk that cannot be read is not the end of a log: cutting there would lose bytes.
func TestScanTellsUnreadableFromTorn(t *testing.T) {
	raw := appendFrame(nil, 1, frame{kind: kindData, data: make([]byte, 5000)})
	if l, err := scan(iotest.OneByteReader(bytes.NewReader(raw)), 1, nil); err != nil || l.known != 5000 {
		t.Errorf("byte by byte: %+v, %v", l, err)
	}
	if l, err := scan(iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(raw))), 1, nil); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("unreadable: %+v, %v", l, err)
	}
	full := errors.New("full")
	if _, err := scan(bytes.NewReader(raw), 1, func([]byte) error { return full }); !errors.Is(err, full) {
		t.Errorf("cannot keep: %v", err)
	}
}

// Whatever lies in a file, scan accepts only frames, and what it accepts encodes
// to the very same bytes.
func FuzzScan(f *testing.F) {
	const seed = 7
	two := appendFrame(appendFrame(nil, seed, frame{kind: kindData, data: []byte("abc")}), seed, frame{kind: kindData, off: 3, data: []byte("de")})
	f.Add(two)
	f.Add(appendFrame(two, seed, frame{kind: kindEnd, off: 5}))
	f.Add(appendFrame(nil, seed, frame{kind: kindEnd}))
	f.Add(two[:len(two)-1])
	f.Add(appendFrame(two, seed, frame{kind: kindData, off: 6, data: []byte("a gap before")}))
	f.Add(make([]byte, 100))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var again []byte
		var off int64
		l, err := scan(bytes.NewReader(raw), seed, func(fr []byte) error {
			d, ok := decodeFrame(fr, seed)
			if !ok || d.off != off || len(d.data) == 0 {
				t.Fatalf("accepted %+v at %d", d, off)
			}
			off += int64(len(d.data))
			again = appendFrame(again, seed, d)
			return nil
		})
		if err != nil || l.known != off || l.end != int64(len(again)) {
			t.Fatalf("%+v, %v; %d bytes in %d", l, err, off, len(again))
		}
		if l.ended {
			again = appendFrame(again, seed, frame{kind: kindEnd, off: off})
		}
		if !bytes.HasPrefix(raw, again) {
			t.Fatal("accepted what is not in the file")
		}
		// The checksum keeps the fuzzer out: try also with one that is right.
		if fixed, ok := resum(raw, seed); ok {
			if d, ok := decodeFrame(fixed, seed); ok && !bytes.Equal(appendFrame(nil, seed, d), fixed[:d.size()]) {
				t.Fatalf("%+v is not what was decoded", d)
			}
		}
	})
}

// resum gives the first frame of raw, if it can be one, the checksum it needs.
func resum(raw []byte, seed uint32) ([]byte, bool) {
	if len(raw) < frameHeader {
		return nil, false
	}
	size, ok := sizeFrom(raw)
	if !ok || size > len(raw) {
		return nil, false
	}
	good := appendFrame(nil, seed, frame{kind: raw[7], data: raw[frameHeader:size]})
	copy(good[8:16], raw[8:16])
	sum := appendFrame(nil, seed, frame{kind: raw[7], off: offsetOf(good), data: good[frameHeader:]})
	return sum, offsetOf(good) >= 0
}

func offsetOf(raw []byte) (off int64) {
	for i := range 8 {
		off |= int64(raw[8+i]) << (8 * i)
	}
	return off
}

// The index leads to the block of each byte, and keeps its promises on sizes,
// whatever the sizes of the frames.
func TestLayout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l layout
		for _, n := range rapid.SliceOfN(rapid.OneOf(rapid.IntRange(1, maxFrame), rapid.IntRange(1, 50)), 1, 100).Draw(t, "frames") {
			l.add(n)
		}
		last := block{-1, -1}
		for i, b := range l.blocks {
			end, stop := l.known, l.end
			if i+1 < len(l.blocks) {
				end, stop = l.blocks[i+1].off, l.blocks[i+1].pos
			}
			if b.off <= last.off || b.pos <= last.pos || end-b.off > maxFrame || stop-b.pos > maxBlock {
				t.Fatalf("block %d: %+v to %d, %d", i, b, end, stop)
			}
			for _, off := range []int64{b.off, end - 1} {
				if got, until := l.find(off); got != b || until != stop {
					t.Fatalf("find %d: %+v until %d, want %+v, %d", off, got, until, b, stop)
				}
			}
			last = b
		}
	})
}
