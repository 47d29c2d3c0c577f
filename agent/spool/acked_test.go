package spool

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"pgregory.net/rapid"
)

// Bytes that were acknowledged are read as what they were or not at all, also
// after a restart. Those that nobody has can only be zeros.
func TestAcknowledgedBytesAreNoZeros(t *testing.T) {
	s, l, p := start(t, MinLimit)
	p.write([]byte("hello, world"))
	poll(t, l)
	l.Acknowledge(5)
	l.Acknowledge(3) // late news
	p.truncate(0)
	p.write([]byte("once more"))
	poll(t, l)
	for _, life := range []string{"this one", "the next one"} {
		for _, off := range []int64{0, 4} {
			if _, err := l.ReadParts(off, make([]byte, 8)); !errors.Is(err, ErrGone) {
				t.Errorf("in %s, at %d: error %v, want that they are gone", life, off, err)
			}
		}
		got := make([]byte, 7+len(cutLine)+9)
		if _, err := l.ReadParts(5, got); err != nil {
			t.Fatal(err)
		}
		same(t, "what was not acknowledged", got, []byte("\x00\x00\x00\x00\x00\x00\x00"+cutLine+"once more"))
		s, l = again(t, s)
	}
	seal(t, l)
	if _, err := l.ReadParts(4, make([]byte, 1)); !errors.Is(err, ErrGone) {
		t.Errorf("sealed: error %v", err)
	}
}

// Also a process that was left behind may cut what is sealed.
func TestAcknowledgedBytesOfASealedLog(t *testing.T) {
	_, l, p := start(t, MinLimit)
	p.write([]byte("hello, world"))
	seal(t, l)
	l.Acknowledge(7)
	p.truncate(3)
	got := make([]byte, 3)
	if _, err := l.ReadParts(0, got); err != nil || string(got) != "hel" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := l.ReadParts(2, got); !errors.Is(err, ErrGone) {
		t.Errorf("error %v, want that they are gone", err)
	}
	if _, err := l.ReadParts(7, got); err != nil || !bytes.Equal(got, make([]byte, 3)) {
		t.Errorf("%q, %v", got, err)
	}
}

// Whatever the process does to its file, an acknowledged byte never reads as
// another one, and what was not acknowledged can always be read.
func TestAcknowledgedBytesNeverChange(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		s := openSpool(t, dir)
		l, err := s.Create(key, MinLimit, "")
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(l.Path(), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close(); _ = l.Remove() }()
		p := process{t, f}
		var acked []byte
		end := int64(0)
		for i := range rapid.IntRange(1, 25).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"write", "write", "poll", "poll", "start over", "acknowledge", "restart"}).Draw(t, "step") {
			case "write":
				p.write(noise(i, rapid.IntRange(1, 5000).Draw(t, "bytes")))
			case "start over":
				p.truncate(0)
			case "poll":
				end = poll(t, l)
			case "acknowledge":
				more := make([]byte, rapid.Int64Range(0, end-int64(len(acked))).Draw(t, "acknowledged"))
				if _, err := l.ReadParts(int64(len(acked)), more); err != nil && !errors.Is(err, io.EOF) {
					t.Fatalf("what was not acknowledged can't be read: %v", err)
				}
				acked = append(acked, more...)
				l.Acknowledge(int64(len(acked)))
			case "restart":
				s, l = again(t, s)
				l.Acknowledge(int64(len(acked))) // the first answer of a session tells
			}
			off := rapid.Int64Range(0, end).Draw(t, "offset")
			got := make([]byte, rapid.IntRange(0, 3000).Draw(t, "length"))
			n, err := l.ReadParts(off, got)
			switch {
			case errors.Is(err, ErrGone) && off < int64(len(acked)):
			case err != nil && !errors.Is(err, io.EOF):
				t.Fatalf("read at %d: %v", off, err)
			case off < int64(len(acked)):
				want := acked[off:min(off+int64(n), int64(len(acked)))]
				same(t, "acknowledged bytes", got[:len(want)], want)
			}
		}
	})
}
