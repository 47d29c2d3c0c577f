package runlog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var key = Key{Run: "nightly-4f2a", Attempt: 1, Fence: 17}

func TestAppendIsPositional(t *testing.T) {
	const start = "0123456789"
	for _, c := range []struct {
		name   string
		seal   int64
		offset int64
		data   string
		known  int64
		err    error
		want   string
	}{
		{"at the end", -1, 10, "abc", 13, nil, start + "abc"},
		{"nothing, at the end", -1, 10, "", 10, nil, start},
		{"nothing, to learn what is known", -1, 0, "", 10, nil, start},
		{"nothing, beyond the end", -1, 99, "", 10, nil, start},
		{"the same again", -1, 0, start, 10, nil, start},
		{"below: the first to come is kept", -1, 2, "xyz", 10, nil, start},
		{"up to the end", -1, 5, "56789", 10, nil, start},
		{"across the end: overlap dropped", -1, 8, "xxab", 12, nil, start + "ab"},
		{"from the beginning across the end", -1, 0, "xxxxxxxxxxab", 12, nil, start + "ab"},
		{"beyond: nothing written, go on from known", -1, 11, "abc", 10, nil, start},
		{"bytes are bytes", -1, 10, "\x00\xff\n\r\x00", 15, nil, start + "\x00\xff\n\r\x00"},
		{"before the start", -1, -1, "abc", 0, ErrInvalid, start},
		{"up to the seal", 12, 10, "ab", 12, nil, start + "ab"},
		{"across the seal: what is before it is taken", 12, 10, "abc", 12, ErrSealed, start + "ab"},
		{"a gap beyond the seal: go on from known", 12, 13, "a", 10, nil, start},
		{"the same again, sealed", 10, 3, "3456789", 10, nil, start},
		{"one more, sealed", 10, 10, "a", 10, ErrSealed, start},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := fresh(t)
			put(t, s, key, 0, []byte(start))
			if c.seal >= 0 {
				mustSeal(t, s, key, c.seal)
			}
			known, err := s.Append(key, c.offset, []byte(c.data), Checksum([]byte(c.data)))
			if known != c.known || !errors.Is(err, c.err) {
				t.Errorf("known %d, %v, want %d, %v", known, err, c.known, c.err)
			}
			if got := content(t, s, key); string(got) != c.want {
				t.Errorf("log is %q, want %q", got, c.want)
			}
		})
	}
}

func TestAppendRefuses(t *testing.T) {
	s := fresh(t)
	for _, run := range []string{"", ".", "..", "a/b", "a.b", "A", "ä", "a b", "a\x00", strings.Repeat("a", 65)} {
		if _, err := s.Append(Key{Run: run, Attempt: 1}, 0, []byte("x"), Checksum([]byte("x"))); !errors.Is(err, ErrInvalid) {
			t.Errorf("run %q: %v", run, err)
		}
		if err := s.Seal(Key{Run: run}, 0); !errors.Is(err, ErrInvalid) {
			t.Errorf("seal run %q: %v", run, err)
		}
	}
	put(t, s, Key{Run: strings.Repeat("z", 64), Attempt: 1<<32 - 1, Fence: 1<<64 - 1}, 0, []byte("the longest name"))

	if _, err := s.Append(key, 0, []byte("abc"), Checksum([]byte("abd"))); !errors.Is(err, ErrChecksum) {
		t.Errorf("damaged data: %v", err)
	}
	big := make([]byte, MaxAppend+1)
	if _, err := s.Append(key, 0, big, Checksum(big)); !errors.Is(err, ErrInvalid) {
		t.Errorf("too much: %v", err)
	}
	if _, ok := s.Stat(key); ok {
		t.Error("something refused left a log")
	}
	put(t, s, key, 0, big[:MaxAppend])
}

func TestReadAnywhere(t *testing.T) {
	s := fresh(t)
	var off int64
	for _, n := range []int{1, 65535, 1, 65536, 65537, 3, 16384, 16384, 16384, 16384, 16384, MaxAppend, 100} {
		put(t, s, key, off, printed(key, off, n))
		off += int64(n)
	}
	all := printed(key, 0, int(off))
	for _, at := range []int64{0, 1, 2, 65535, 65536, 65537, 131072, 131073, 200000, off - 1, off, off + 5} {
		for _, n := range []int{0, 1, 1000, 65536, 300000} {
			p := make([]byte, n)
			got, err := s.Read(key, p, at)
			want := all[min(at, off):min(at+int64(n), off)]
			if !bytes.Equal(p[:got], want) || errors.Is(err, io.EOF) != (len(want) < n) || err != nil && !errors.Is(err, io.EOF) {
				t.Fatalf("read %d at %d: %d bytes, %v, want %d", n, at, got, err, len(want))
			}
		}
	}
	if _, err := s.Read(key, nil, -1); !errors.Is(err, ErrInvalid) {
		t.Errorf("read before the start: %v", err)
	}
	if n, err := s.Read(Key{Run: "unknown"}, make([]byte, 1), 0); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read what is not there: %d, %v", n, err)
	}
}

func TestSeal(t *testing.T) {
	s := fresh(t)
	// The result comes first, the log later.
	mustSeal(t, s, key, 5)
	mustSeal(t, s, key, 5)
	if i, ok := s.Stat(key); !ok || i != (Info{Length: 5, Sealed: true}) {
		t.Fatalf("sealed before the first byte: %+v", i)
	}
	put(t, s, key, 0, []byte("abc"))
	for _, length := range []int64{0, 2, 4, 6} {
		if err := s.Seal(key, length); !errors.Is(err, ErrSealed) {
			t.Errorf("seal at 5, then at %d: %v", length, err)
		}
	}
	put(t, s, key, 3, []byte("de"))
	if i, _ := s.Stat(key); i != (Info{Known: 5, Length: 5, Sealed: true, Complete: true}) {
		t.Fatalf("complete: %+v", i)
	}
	mustSync(t, s, key, 5)

	open := Key{Run: "open", Attempt: 2}
	put(t, s, open, 0, []byte("abc"))
	if err := s.Seal(open, 2); !errors.Is(err, ErrSealed) {
		t.Errorf("seal below what is known: %v", err)
	}
	if err := s.Seal(open, -1); !errors.Is(err, ErrInvalid) {
		t.Errorf("seal below zero: %v", err)
	}
}

// Most jobs print nothing. That must leave no trace on disk, nor grow for ever in memory.
func TestSealEmptyCostsNoFile(t *testing.T) {
	s := fresh(t)
	s.empty = NewRecent[struct{}](100)
	for i := range uint32(10_000) {
		mustSeal(t, s, Key{Run: "quiet", Attempt: i}, 0)
	}
	last := Key{Run: "quiet", Attempt: 9_999}
	if i, ok := s.Stat(last); !ok || i != (Info{Sealed: true, Complete: true}) {
		t.Errorf("%+v, %v", i, ok)
	}
	if err := s.Follow(t.Context(), last, 0, func(int64, []byte) error { return errors.New("called") }); err != nil {
		t.Errorf("follow: %v", err)
	}
	if _, err := s.Append(last, 0, []byte("x"), Checksum([]byte("x"))); !errors.Is(err, ErrSealed) {
		t.Errorf("append: %v", err)
	}
	if err := s.Seal(last, 7); err == nil { // not in memory any more, but remembered
		t.Error("sealed at 0, then at 7")
	}
	if got := sizeOf(s); got > 1 {
		t.Errorf("%d attempts in memory", got)
	}
	if n := len(s.empty.now) + len(s.empty.then); n > 200 {
		t.Errorf("%d empty logs in memory", n)
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(s.shards[0].path), "*", "*"))
	if err != nil || len(files) > 0 {
		t.Errorf("files: %v, %v", files, err)
	}
	// Told again after all has gone from memory, with bytes on disk: bytes are believed.
	loud := Key{Run: "loud"}
	put(t, s, loud, 0, []byte("x"))
	dir := filepath.Dir(s.shards[0].path)
	s.Close()
	s = reopen(t, dir)
	mustSeal(t, s, loud, 0)
	if i, _ := s.Stat(loud); i != (Info{Known: 1}) {
		t.Errorf("sealed at 0 with a byte on disk: %+v", i)
	}
}

func sizeOf(s *Store) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.logs)
}

func TestRemoveAndKeys(t *testing.T) {
	s := fresh(t)
	keys := map[Key]bool{}
	for _, run := range []string{"a", "b", "c-1", "d"} {
		for n := range uint32(4) {
			k := Key{Run: run, Attempt: n / 2, Fence: uint64(n%2) * 100}
			put(t, s, k, 0, []byte("output"))
			keys[k] = true
		}
	}
	// What is not ours is left alone.
	if err := os.Mkdir(s.shards[7].path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	for _, name := range []string{"README", "a.1.2.log.bak", "A.1.2.log", "a.01.2.log", "a.1.02.log", "a.1.2.3.log", "a.1.log", "a.log", "a.1.2.new"} {
		if err := os.WriteFile(filepath.Join(s.shards[7].path, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Remove(Key{Run: "a", Attempt: 1, Fence: 100}, Key{Run: "never", Attempt: 1}, Key{Run: "d", Attempt: 0}); err != nil {
		t.Fatal(err)
	}
	delete(keys, Key{Run: "a", Attempt: 1, Fence: 100})
	delete(keys, Key{Run: "d", Attempt: 0})
	if err := s.Remove(Key{Run: "../x"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("remove what is no key: %v", err)
	}
	for k, err := range s.Keys() {
		if err != nil || !keys[k] {
			t.Errorf("found %v, %v", k, err)
		}
		delete(keys, k)
	}
	if len(keys) > 0 {
		t.Errorf("not found: %v", keys)
	}
	for range s.Keys() {
		break
	}
	if _, ok := s.Stat(Key{Run: "a", Attempt: 1, Fence: 100}); ok {
		t.Error("removed, still there")
	}
	put(t, s, Key{Run: "a", Attempt: 1, Fence: 100}, 0, []byte("new life"))
}

func TestClosed(t *testing.T) {
	s := fresh(t)
	put(t, s, key, 0, []byte("x"))
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, e1 := s.Append(key, 1, nil, 0)
	_, e2 := s.Sync(context.Background(), key)
	_, e3 := s.Read(key, nil, 0)
	e4 := s.Follow(context.Background(), key, 0, nil)
	for i, err := range []error{e1, e2, e3, e4, s.Seal(key, 1), s.Seal(key, 0), s.Remove(key)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if _, ok := s.Stat(key); ok {
		t.Error("stat of a closed store")
	}
	if s.open != 0 {
		t.Errorf("%d files open", s.open)
	}
}
