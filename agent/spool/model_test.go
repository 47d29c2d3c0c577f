package spool

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"reflect"
	"runtime"
	"testing"

	"pgregory.net/rapid"
)

// model is a log as the package's documentation tells it, in memory.
type model struct {
	limit    int
	file     []byte // what a file without holes would hold
	closed   []byte // earlier parts, with their lines
	used     int    // bytes of the head that these take
	parts    int
	reported []byte // of the present part
}

func (m *model) room() int {
	if m.parts == maxCuts {
		return 0
	}
	return m.limit/2 - m.used
}

// look is what happens before anything is reported.
func (m *model) look() {
	n := len(m.reported)
	if len(m.file) >= n && bytes.Equal(m.file[max(0, n-window):n], m.reported[max(0, n-window):]) {
		return
	}
	m.closed = append(append(m.closed, make([]byte, n)...), cutLine...)
	m.used += n
	m.parts++
	m.reported = nil
}

func (m *model) poll() []byte {
	m.look()
	if n := min(len(m.file), m.room()); n > len(m.reported) {
		m.reported = bytes.Clone(m.file[:n])
	}
	return append(bytes.Clone(m.closed), m.reported...)
}

func (m *model) seal() (all []byte, dropped int) {
	m.look()
	tail := m.limit - m.limit/2
	dropped = max(0, len(m.file)-tail-m.room())
	if dropped == 0 {
		return append(bytes.Clone(m.closed), m.file...), 0
	}
	all = append(bytes.Clone(m.closed), m.file[:m.room()]...)
	all = append(all, leftOut(int64(dropped), int64(m.limit))...)
	return append(all, m.file[len(m.file)-tail:]...), dropped
}

// Whatever the process writes, however often it starts over and the agent
// restarts: what was reported once stays as it was, or is gone where the
// process itself destroyed it; and the sealed log is the model's.
func TestLogIsTheModels(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		s := openSpool(t, dir)
		m := &model{limit: rapid.IntRange(MinLimit, MinLimit+3*page).Draw(t, "limit")}
		file := ""
		if runtime.GOOS == "linux" && rapid.Bool().Draw(t, "reserved") {
			file = reserved(t, s)
		}
		restart := func() {
			t.Helper()
			s = openSpool(t, s.dir)
			if l := s.Claim(key, int64(m.limit), file); l == nil {
				t.Fatal("the log is not there after a restart")
			}
			if err := s.Sweep(); err != nil {
				t.Fatal(err)
			}
		}
		l, err := s.Create(key, int64(m.limit), file)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(l.Path(), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close(); _ = l.Remove() }()
		p := process{t, f}
		var shown []byte // the logical log as somebody has seen it
		check := func(got, want []byte) {
			same(t, "logical log", got, want)
			if len(got) < len(shown) {
				t.Fatalf("%d bytes, %d before", len(got), len(shown))
			}
			for i, c := range shown {
				if got[i] != c && (got[i] != 0 || i >= len(m.closed)) {
					t.Fatalf("byte %d was %#x, now it is %#x", i, c, got[i])
				}
			}
			shown = got
		}
		for i := range rapid.IntRange(1, 25).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"write", "write", "write", "poll", "poll", "restart", "start over"}).Draw(t, "step") {
			case "write":
				b := noise(i, rapid.SampledFrom([]int{1, 600, 5000, 30000, 70000}).Draw(t, "bytes"))
				p.write(b)
				m.file = append(m.file, b...)
			case "start over":
				p.truncate(0)
				m.file = nil
			case "restart":
				restart()
				l, _ = s.Get(key)
			case "poll":
				size := poll(t, l)
				want := m.poll()
				if size != int64(len(want)) {
					t.Fatalf("Poll says %d, want %d", size, len(want))
				}
				check(logical(t, l), want)
				if got, most := s.Usage(), int64(m.limit+6*page); got > most {
					t.Fatalf("%d bytes of disk, more than %d", got, most)
				}
			}
		}
		length, dropped := seal(t, l)
		want, left := m.seal()
		if length != int64(len(want)) || dropped != int64(left) {
			t.Fatalf("sealed: %d bytes, %d left out, want %d and %d", length, dropped, len(want), left)
		}
		check(logical(t, l), want)
		restart()
		l, _ = s.Get(key)
		l.Resume(length)
		check(logical(t, l), want)
	})
}

func FuzzSidecar(f *testing.F) {
	f.Add(encodeMeta(meta{limit: MinLimit}))
	f.Add(encodeMeta(meta{seq: 7, limit: 1 << 20, cuts: []int64{1, 2, 3}, mark: 500, sum: 9, hole: 1 << 19, acked: 4}))
	f.Add(encodeMeta(meta{seq: 8, limit: 1 << 20, sealed: true, total: 1 << 40}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == slotLen { // past the checksum
			b = fixSum(b)
		}
		m, ok := decodeMeta(b)
		if !ok {
			return
		}
		if back, ok := decodeMeta(encodeMeta(m)); !ok || !reflect.DeepEqual(back, m) {
			t.Fatalf("%+v comes back as %+v", m, back)
		}
		end := m.end()
		if end < 0 {
			t.Fatalf("%+v: a log of %d bytes", m, end)
		}
		p := make([]byte, min(end, 1000))
		if _, err := m.read(nil, p, end-int64(len(p))); err != nil {
			t.Fatal(err)
		}
	})
}

func fixSum(b []byte) []byte {
	b = bytes.Clone(b)
	binary.LittleEndian.PutUint32(b[slotLen-4:], crc32.Checksum(b[:slotLen-4], castagnoli))
	return b
}
