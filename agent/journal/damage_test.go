package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// story is a file of one record per batch, and where each ends.
func story(t testing.TB) (recs []Record, data []byte, ends []int) {
	t.Helper()
	d := newMemDisk()
	j, _ := openMem(t, d)
	j.compactMin = 1 << 30
	step := func(k Kind, run string, fence uint64) {
		r := Record{Kind: k, Key: Key{run, 1}, Fence: fence, Time: epoch, Payload: []byte(k.String() + " " + run)}
		if err := j.Append(r); err != nil {
			t.Fatal(err)
		}
		recs = append(recs, r)
		ends = append(ends, int(j.size))
	}
	step(Accepted, "a", 1)
	step(Accepted, "b", 2)
	step(Started, "a", 1)
	step(Exited, "a", 1)
	step(Accepted, "c", 3)
	step(Acked, "a", 1)
	step(Started, "b", 2)
	step(Exited, "c", 3)
	return recs, d.names[name].data, ends
}

func TestCutAtAnyByteLeavesAPrefix(t *testing.T) {
	recs, data, ends := story(t)
	for size := range len(data) + 1 {
		d := newMemDisk()
		d.put(name, data[:size])
		j, es := openMem(t, d)
		n := 0
		for n < len(ends) && ends[n] <= size {
			n++
		}
		if diff := cmp.Diff(remember(recs[:n]), viewOf(es, j)); diff != "" {
			t.Fatalf("cut to %d bytes (-want +got):\n%s", size, diff)
		}
		if err := j.Append(Record{Kind: Accepted, Key: Key{"new", 1}, Fence: 9}); err != nil {
			t.Fatalf("cut to %d bytes: %v", size, err)
		}
	}
}

// A byte that changed takes its own record and no other, and what may have been
// lost with it is refused. Only in the last batch is it taken for a torn write.
func TestChangedByteTakesOneRecord(t *testing.T) {
	recs, data, ends := story(t)
	for i := range data {
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			bad := append([]byte(nil), data...)
			bad[i] ^= flip
			d := newMemDisk()
			d.put(name, bad)
			j, es := openMem(t, d)

			hit := 0
			for ends[hit] <= i {
				hit++
			}
			left := recs
			if i >= headerLen {
				left = append(recs[:hit:hit], recs[hit+1:]...)
			}
			if diff := cmp.Diff(remember(left), viewOf(es, j)); diff != "" {
				t.Fatalf("byte %d, in record %d (-want +got):\n%s", i, hit, diff)
			}
			// "c" is known by its exit, if by nothing else.
			err := j.Append(Record{Kind: Accepted, Key: Key{"c", 1}, Fence: 3})
			if !errors.Is(err, ErrExists) {
				t.Fatalf("byte %d: accept c again: %v", i, err)
			}
			lost := i >= headerLen && hit < len(recs)-1
			err = j.Append(Record{Kind: Accepted, Key: Key{"unknown", 1}, Fence: 3})
			if errors.Is(err, ErrUncertain) != lost {
				t.Fatalf("byte %d: accept an unknown attempt of fence 3: %v", i, err)
			}
			if err := j.Append(Record{Kind: Accepted, Key: Key{"later", 1}, Fence: 4}); err != nil {
				t.Fatalf("byte %d: accept an attempt of a later fence: %v", i, err)
			}
			again, es2 := openMem(t, d)
			if lost && again.table.floor != 3 {
				t.Fatalf("byte %d: floor %d after another restart", i, again.table.floor)
			}
			if diff := cmp.Diff(viewOf(j.table.list(), j), viewOf(es2, again)); diff != "" {
				t.Fatalf("byte %d: after another restart (-want +got):\n%s", i, diff)
			}
		}
	}
}

// A note shares the next fsync with the records behind it. When one of its bytes changes
// afterwards, those are acknowledged, and what they accepted may run: they stay.
func TestDamagedNoteTakesNothingAlong(t *testing.T) {
	d := newMemDisk()
	j, _ := openMem(t, d)
	appendAll(t, j, rec(Accepted, "w", 5))
	appendAll(t, j, rec(Exited, "w", 5))
	from := j.size
	if err := j.Note(rec(Acked, "w", 5)); err != nil {
		t.Fatal(err)
	}
	to := j.size
	appendAll(t, j, rec(Accepted, "x", 6))
	data := d.names[name].data
	want := remember([]Record{rec(Accepted, "w", 5), rec(Exited, "w", 5), rec(Accepted, "x", 6)})

	for i := from; i < to; i++ {
		bad := bytes.Clone(data)
		bad[i] ^= 0x10
		d := newMemDisk()
		d.put(name, bad)
		j, es := openMem(t, d)
		if diff := cmp.Diff(want, viewOf(es, j)); diff != "" {
			t.Fatalf("byte %d (-want +got):\n%s", i, diff)
		}
		if err := j.Append(rec(Accepted, "x", 6)); !errors.Is(err, ErrExists) {
			t.Fatalf("byte %d: accept x again: %v", i, err)
		}
		// It may as well be a torn write, which must not keep attempts away.
		if err := j.Append(rec(Accepted, "older", 4)); err != nil {
			t.Fatalf("byte %d: accept an attempt of an older fence: %v", i, err)
		}
		again, es := openMem(t, d)
		if diff := cmp.Diff(viewOf(j.table.list(), j), viewOf(es, again)); diff != "" {
			t.Fatalf("byte %d: after another restart (-want +got):\n%s", i, diff)
		}
	}
}

func FuzzOpen(f *testing.F) {
	recs, data, _ := story(f)
	var all []*Record
	for i := range recs {
		all = append(all, &recs[i])
	}
	f.Add(data)
	f.Add(append(encodeHeader(), encodeBatch(all, headerLen, headerLen, 0)...))
	f.Add(append(data[:40:40], data[70:]...))
	f.Add(encodeHeader())
	f.Add([]byte("not a journal at all"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := newMemDisk()
		d.put(name, data)
		j, es, err := openOn(d, name, quiet())
		if err != nil {
			if !errors.Is(err, ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		fence := j.table.high + 1
		if fence == 0 {
			return // no fence above the highest there is
		}
		r := Record{Kind: Accepted, Key: Key{"appended", 7}, Fence: fence, Time: epoch}
		err = j.Append(r)
		if known := errors.Is(err, ErrExists); err != nil && !known {
			t.Fatal(err)
		} else if !known {
			es = append(es, Entry{Key: r.Key, Fence: r.Fence, Accepted: &r})
		}
		var log bytes.Buffer
		again, es2, err := openOn(d, name, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil || log.Len() > 0 {
			t.Fatalf("opened again: %v %s", err, log.String())
		}
		if diff := cmp.Diff(view{es, j.table.acked}, viewOf(es2, again)); diff != "" {
			t.Fatalf("opened again (-want +got):\n%s", diff)
		}
	})
}

func TestDamageIsReportedAndKept(t *testing.T) {
	recs, data, ends := story(t)
	torn := append(encodeHeader(), encodeBatch([]*Record{&recs[0], &recs[1]}, headerLen, headerLen, 0)...)
	torn[headerLen+frameLen] ^= 1
	for _, c := range []struct {
		name string
		data []byte
		says string
		kept []byte
	}{
		{"a torn tail", data[:ends[6]+5], "torn write", data[ends[6] : ends[6]+5]},
		{"more zeros at the end than there is room", append(data[:ends[3]:ends[3]], make([]byte, roomStep+1)...), "torn write", make([]byte, roomStep+1)},
		{"a hole in the middle", append(append(data[:ends[1]:ends[1]], make([]byte, ends[2]-ends[1])...), data[ends[2]:]...), "damaged", nil},
		{"a hole in the last batch", torn, "damaged", nil},
		{"no header", append(make([]byte, headerLen), data[headerLen:]...), "damaged", nil},
		{"half a header", data[:7], "no whole record", data[:7]},
		{"something else", []byte("#!/bin/sh\necho what is this doing here\n"), "no whole record", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newMemDisk()
			d.put(name, c.data)
			var log bytes.Buffer
			if _, _, err := openOn(d, name, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(log.String(), c.says) || strings.Count(log.String(), "\n") != 1 {
				t.Errorf("log %q, want one line with %q", log.String(), c.says)
			}
			if c.kept == nil {
				c.kept = c.data
			}
			if f := d.names[name+".damaged-1"]; f == nil || !bytes.Equal(f.data, c.kept) {
				t.Errorf("the damaged bytes were not kept as they were")
			}
		})
	}
}

func TestNewerVersionIsLeftAlone(t *testing.T) {
	d := newMemDisk()
	data := encodeHeader()
	data[8] = 2
	binary.LittleEndian.PutUint32(data[12:], crc32.Checksum(data[:12], castagnoli))
	data = append(data, "what we can't read"...)
	d.put(name, data)
	if _, _, err := openOn(d, name, quiet()); !errors.Is(err, ErrVersion) {
		t.Fatal(err)
	}
	if !bytes.Equal(d.names[name].data, data) {
		t.Error("the file was changed")
	}
}
