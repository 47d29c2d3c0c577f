package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var key = Key{"nightly-report-20260329", 1}

// tb is what a test and a property have in common.
type tb interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func openSpool(t tb, dir string) *Spool {
	t.Helper()
	s, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// process is the job's: it writes to the file and nobody is in between.
type process struct {
	t tb
	f *os.File
}

func start(t *testing.T, limit int64) (*Spool, *Log, process) {
	t.Helper()
	s := openSpool(t, t.TempDir())
	l, err := s.Create(key, limit, "")
	if err != nil {
		t.Fatal(err)
	}
	return s, l, run(t, l)
}

func run(t *testing.T, l *Log) process {
	t.Helper()
	f, err := os.OpenFile(l.Path(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return process{t, f}
}

func (p process) write(b []byte) {
	p.t.Helper()
	if _, err := p.f.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

func (p process) truncate(size int64) {
	p.t.Helper()
	if err := p.f.Truncate(size); err != nil {
		p.t.Fatal(err)
	}
}

// noise is n bytes that occur nowhere else, NULs and invalid UTF-8 among them.
func noise(seed, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

func poll(t tb, l *Log) int64 {
	t.Helper()
	size, _, err := l.Poll()
	if err != nil {
		t.Fatal(err)
	}
	return size
}

func seal(t tb, l *Log) (length, dropped int64) {
	t.Helper()
	length, dropped, err := l.Seal()
	if err != nil {
		t.Fatal(err)
	}
	return length, dropped
}

// logical reads all that can be shipped, in chunks of an odd size, each in two parts.
func logical(t tb, l *Log) []byte {
	t.Helper()
	var all []byte
	chunk := make([]byte, 10007)
	for {
		n, err := l.ReadParts(int64(len(all)), chunk[:4099], chunk[4099:])
		all = append(all, chunk[:n]...)
		if err == io.EOF { //nolint:errorlint // never wrapped, as of an io.ReaderAt
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func again(t tb, s *Spool) (*Spool, *Log) {
	t.Helper()
	s2 := openSpool(t, s.dir)
	l, ok := s2.Get(key)
	if !ok {
		t.Fatal("the log is not there after a restart")
	}
	return s2, l
}

func same(t tb, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		n := 0
		for n < min(len(got), len(want)) && got[n] == want[n] {
			n++
		}
		t.Fatalf("%s: %d bytes, want %d; they differ from byte %d on: %.150q, want %.150q", what, len(got), len(want), n, got[n:], want[n:])
	}
}

func leftOut(n, limit int64) string {
	return fmt.Sprintf("\n[schedd: %d bytes left out here: over the log limit of %d bytes]\n", n, limit)
}

func TestLimitKeepsHeadAndTail(t *testing.T) {
	const limit, half = MinLimit, MinLimit / 2
	for _, c := range []struct {
		name        string
		limit, size int
		dropped     int64
	}{
		{"nothing", limit, 0, 0},
		{"one byte", limit, 1, 0},
		{"just short of the head", limit, half - 1, 0},
		{"the head", limit, half, 0},
		{"a byte beyond the head", limit, half + 1, 0},
		{"just short of the limit", limit, limit - 1, 0},
		{"the limit", limit, limit, 0},
		{"a byte over the limit", limit, limit + 1, 1},
		{"far over the limit", limit, 10*limit + 4097, 9*limit + 4097},
		{"an odd limit", limit + 1, limit + 1, 0},
		{"over an odd limit", limit + 1, limit + 3, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, l, p := start(t, int64(c.limit))
			out := noise(1, c.size)
			p.write(out[:c.size/3])
			poll(t, l)
			p.write(out[c.size/3:])
			head := out[:min(c.size, c.limit/2)]
			if got := poll(t, l); got != int64(len(head)) {
				t.Errorf("%d bytes can be shipped while it runs, want %d", got, len(head))
			}
			same(t, "while it runs", logical(t, l), head)
			s, l = again(t, s)
			same(t, "after a restart", logical(t, l), head)

			want := out
			if c.dropped > 0 {
				want = append(append(slices.Clip(head), leftOut(c.dropped, int64(c.limit))...), out[c.size-(c.limit-c.limit/2):]...)
			}
			for _, round := range []string{"sealed", "sealed again", "after a restart"} {
				length, dropped := seal(t, l)
				if length != int64(len(want)) || dropped != c.dropped || poll(t, l) != length {
					t.Errorf("%s: length %d, dropped %d, want %d and %d", round, length, dropped, len(want), c.dropped)
				}
				same(t, round, logical(t, l), want)
				s, l = again(t, s)
			}
		})
	}
}

// The process never stops writing and never closes its file. The disk doesn't
// notice.
func TestDiskIsBoundedWhileTheProcessWrites(t *testing.T) {
	const limit = 1 << 20
	s, l, p := start(t, limit)
	var tail []byte
	const step = 512 << 10
	for i := range 80 { // 40 MiB
		b := noise(i, step)
		p.write(b)
		if size, _, err := l.Poll(); errors.Is(err, ErrUnbounded) {
			t.Skip("punch holes: the file system of the temporary directory can't")
		} else if err != nil || size != min(limit/2, int64(i+1)*step) {
			t.Fatal(size, err)
		}
		// Two pages at the hole's edges, one or two for the sidecar, and what
		// the file system needs to find the blocks.
		if got := s.Usage(); got > limit+10*page {
			t.Fatalf("%d bytes of disk in use after %d were written, the limit is %d", got, (i+1)*step, limit)
		}
		tail = b
	}
	var st unix.Stat_t
	if err := unix.Stat(l.Path(), &st); err != nil || st.Size != 80*step || st.Blocks*512 > limit+4*page {
		t.Fatalf("file of %d bytes takes %d: %v", st.Size, st.Blocks*512, err)
	}
	_, dropped := seal(t, l)
	want := append(noise(0, step), leftOut(80*step-limit, limit)...)
	same(t, "sealed", logical(t, l), append(want, tail...))
	if dropped != 80*step-limit {
		t.Errorf("dropped %d", dropped)
	}
}

func TestWithoutHolesPollSaysSo(t *testing.T) {
	s, l, p := start(t, MinLimit)
	s.punch = func(*os.File, int64, int64) error { return ErrUnbounded }
	p.write(noise(1, MinLimit))
	poll(t, l) // not over the limit yet
	p.write(noise(2, MinLimit))
	for range 2 {
		if size, _, err := l.Poll(); !errors.Is(err, ErrUnbounded) || size != MinLimit/2 {
			t.Errorf("%d, %v", size, err)
		}
	}
	if length, dropped := seal(t, l); dropped != MinLimit || length <= MinLimit {
		t.Errorf("sealed: %d, %d", length, dropped)
	}
}

// A process does as it likes with its own output. What was reported stays, and
// the log says what happened.
func TestProcessRewritesItsOutput(t *testing.T) {
	const half = MinLimit / 2
	a, b := noise(1, 4*MinLimit), noise(2, 4*MinLimit)
	overwrite := func(p process, b []byte, off int64) {
		f, err := os.OpenFile(p.f.Name(), os.O_WRONLY, 0)
		if err != nil {
			p.t.Fatal(err)
		}
		if _, err := f.WriteAt(b, off); err != nil {
			p.t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			p.t.Fatal(err)
		}
	}
	zeros := func(n int) string { return string(make([]byte, n)) }
	for _, c := range []struct {
		name  string
		first int // bytes of a that were reported
		then  func(process)
		want  string
	}{
		{"nothing else", 1000, func(process) {}, string(a[:1000])},
		{"truncates", 1000, func(p process) { p.truncate(0) }, zeros(1000) + cutLine},
		{"truncates and writes less", 1000, func(p process) { p.truncate(0); p.write(b[:10]) }, zeros(1000) + cutLine + string(b[:10])},
		{"truncates and writes as much", 1000, func(p process) { p.truncate(0); p.write(b[:1000]) }, zeros(1000) + cutLine + string(b[:1000])},
		{"truncates and writes more", 1000, func(p process) { p.truncate(0); p.write(b[:3000]) }, zeros(1000) + cutLine + string(b[:3000])},
		{"truncates and writes the same", 1000, func(p process) { p.truncate(0); p.write(a[:1000]) }, string(a[:1000])},
		{"truncates before anything was reported", 0, func(p process) { p.write(a); p.truncate(0); p.write(b[:10]) }, string(b[:10])},
		{"takes back a part", 1000, func(p process) { p.truncate(600) }, zeros(1000) + cutLine + string(a[:600])},
		{"writes over the end", 1000, func(p process) { overwrite(p, b[:10], 990) }, zeros(1000) + cutLine + string(a[:990]) + string(b[:10])},
		{"leaves a gap", 1000, func(p process) { p.truncate(0); overwrite(p, b[:10], 1000) }, zeros(1000) + cutLine + zeros(1000) + string(b[:10])},
		{"makes the file huge", 1000, func(p process) { p.truncate(1 << 40) }, string(a[:1000]) + zeros(half-1000) + leftOut(1<<40-MinLimit, MinLimit) + zeros(half)},
		{
			"truncates a full head", MinLimit, func(p process) { p.truncate(0); p.write(b[:half]) },
			zeros(half) + cutLine + string(b[:half]),
		},
		{
			"truncates a full head and writes more than a tail", MinLimit, func(p process) { p.truncate(0); p.write(b[:MinLimit]) },
			zeros(half) + cutLine + leftOut(half, MinLimit) + string(b[half:MinLimit]),
		},
		{
			"takes back to within the hole", 4 * MinLimit, func(p process) { p.truncate(2 * MinLimit) },
			string(a[:half]) + leftOut(2*MinLimit-half, MinLimit),
		},
		{"deletes the file", 1000, func(p process) { _ = os.Remove(p.f.Name()) }, zeros(1000) + cutLine},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, l, p := start(t, MinLimit)
			p.write(a[:c.first])
			poll(t, l)
			c.then(p)
			if got := logical(t, l); !strings.HasPrefix(c.want, string(got)) {
				t.Errorf("read without another Poll: no beginning of what is sealed later")
			}
			before := poll(t, l)
			same(t, "while it runs", logical(t, l), []byte(c.want)[:before])
			length, _ := seal(t, l)
			if length != int64(len(c.want)) {
				t.Errorf("length %d, want %d", length, len(c.want))
			}
			same(t, "sealed", logical(t, l), []byte(c.want))
		})
	}
}

// After the eighth time nothing more is reported until the end, and the lines
// stop.
func TestRewritingForEverIsBounded(t *testing.T) {
	s, l, p := start(t, MinLimit)
	for i := range 50 {
		p.truncate(0)
		p.write(noise(i, 100+i))
		poll(t, l)
		if i%7 == 0 {
			s, l = again(t, s)
		}
	}
	seal(t, l)
	got := logical(t, l)
	if n := strings.Count(string(got), cutLine); n != maxCuts || !bytes.HasSuffix(got, noise(49, 149)) {
		t.Errorf("%d lines in %d bytes", n, len(got))
	}
}

// What was left behind by the process can't change a sealed log, nor fill the
// disk.
func TestLeftoverWriterAfterSeal(t *testing.T) {
	s, l, p := start(t, MinLimit)
	p.write([]byte("the result\n"))
	seal(t, l)
	for range 5 {
		p.write(noise(1, MinLimit))
		if got := poll(t, l); got != 11 {
			t.Errorf("%d bytes", got)
		}
	}
	same(t, "sealed", logical(t, l), []byte("the result\n"))
	if got := s.Usage(); got > 4*page {
		t.Errorf("%d bytes of disk", got)
	}
	p.truncate(4)
	same(t, "what is gone reads as zeros", logical(t, l), []byte("the \x00\x00\x00\x00\x00\x00\x00"))
}

func TestKeysAndLimits(t *testing.T) {
	s := openSpool(t, filepath.Join(t.TempDir(), "made", "by", "open"))
	for _, c := range []struct {
		k     Key
		limit int64
		want  error
	}{
		{Key{"a", 1}, MinLimit, nil},
		{Key{"a", 1}, MinLimit, ErrExists},
		{Key{"a", 2}, 1 << 60, nil},
		{Key{"a", 4294967295}, MinLimit, nil},
		{Key{"-", 1}, MinLimit, nil},
		{Key{strings.Repeat("x", 128), 1}, MinLimit, nil},
		{Key{strings.Repeat("x", 129), 1}, MinLimit, ErrInvalid},
		{Key{"", 1}, MinLimit, ErrInvalid},
		{Key{"a", 0}, MinLimit, ErrInvalid},
		{Key{"..", 1}, MinLimit, ErrInvalid},
		{Key{"../../etc/passwd", 1}, MinLimit, ErrInvalid},
		{Key{"a/b", 1}, MinLimit, ErrInvalid},
		{Key{"a.1", 1}, MinLimit, ErrInvalid},
		{Key{"A", 1}, MinLimit, ErrInvalid},
		{Key{"a\x00", 1}, MinLimit, ErrInvalid},
		{Key{"a\n", 1}, MinLimit, ErrInvalid},
		{Key{"ä", 1}, MinLimit, ErrInvalid},
		{Key{"b", 1}, MinLimit - 1, ErrInvalid},
		{Key{"b", 1}, -1, ErrInvalid},
		{Key{"b", 1}, 1<<60 + 1, ErrInvalid},
	} {
		l, err := s.Create(c.k, c.limit, "")
		if !errors.Is(err, c.want) {
			t.Errorf("%v, limit %d: %v, want %v", c.k, c.limit, err, c.want)
		}
		if err != nil {
			continue
		}
		st, err := os.Stat(l.Path())
		if err != nil || st.Mode() != 0o600 || filepath.Dir(l.Path()) != s.dir {
			t.Errorf("%v: %q, %v", c.k, l.Path(), err)
		}
		if got, ok := s.Get(c.k); !ok || got != l {
			t.Errorf("%v: Get doesn't find it", c.k)
		}
	}
	if n, m := len(s.logs), len(openSpool(t, s.dir).logs); n != 5 || m != n {
		t.Errorf("%d logs, %d after a restart", n, m)
	}
}

func TestRemove(t *testing.T) {
	s, l, p := start(t, MinLimit)
	p.write(noise(1, MinLimit))
	if err := l.Remove(); err != nil {
		t.Fatal(err)
	}
	if st, err := p.f.Stat(); err != nil || st.Size() != 0 {
		t.Error("the space isn't free while the process has the file open")
	}
	if names, _ := os.ReadDir(s.dir); len(names) != 0 || s.Usage() != 0 {
		t.Errorf("left behind: %v", names)
	}
	if _, ok := s.Get(key); ok {
		t.Error("Get still finds it")
	}
	_, _, perr := l.Poll()
	_, rerr := l.ReadParts(0, nil)
	_, _, serr := l.Seal()
	for _, err := range []error{perr, rerr, serr, l.Remove()} {
		if !errors.Is(err, ErrRemoved) {
			t.Errorf("after Remove: %v", err)
		}
	}
	if _, err := s.Create(key, MinLimit, ""); err != nil {
		t.Errorf("the key can't be used again: %v", err)
	}
}

func TestOpenFindsWhatACrashLeft(t *testing.T) {
	k := Key{"r", 1}
	const log, meta = "r.1.65536.log", "r.1.meta"
	for _, c := range []struct {
		name  string
		do    func(log, meta string) error
		found bool
		left  []string
	}{
		{"all is well", func(_, _ string) error { return nil }, true, []string{log, meta}},
		{"the file is missing", func(log, _ string) error { return os.Remove(log) }, false, nil},
		{"the sidecar is missing", func(_, meta string) error { return os.Remove(meta) }, true, []string{log, meta}},
		{"the sidecar was being made", func(_, meta string) error { return os.Rename(meta, meta+".new") }, true, []string{log, meta}},
		{"the sidecar was being made again", func(_, meta string) error { return os.WriteFile(meta+".new", nil, 0o600) }, true, []string{log, meta}},
		{"the older slot is torn", func(_, meta string) error { return scribble(meta, 100) }, true, []string{log, meta}},
		{"the newer slot is torn", func(_, meta string) error { return scribble(meta, slotLen+100) }, true, []string{log, meta}},
		{"both slots are torn", func(_, meta string) error {
			return errors.Join(scribble(meta, 100), scribble(meta, slotLen+100))
		}, false, []string{log + ".damaged", meta + ".damaged"}},
		{"the sidecar is empty", func(_, meta string) error { return os.Truncate(meta, 0) }, false, []string{log + ".damaged", meta + ".damaged"}},
		{"the disk was being tried", func(log, _ string) error {
			return os.WriteFile(filepath.Join(filepath.Dir(log), probeNames[0]), nil, 0o600)
		}, true, []string{log, meta}},
		{"something else is there", func(log, _ string) error { return os.Rename(log, filepath.Join(filepath.Dir(log), "README")) }, false, []string{"README"}},
		{"another name is there", func(log, _ string) error { return os.Rename(log, filepath.Join(filepath.Dir(log), "r.1.065536.log")) }, false, []string{"r.1.065536.log"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openSpool(t, t.TempDir())
			l, err := s.Create(k, MinLimit, s.Reserve())
			if err != nil {
				t.Fatal(err)
			}
			run(t, l).write([]byte("hello"))
			poll(t, l)
			if err := c.do(filepath.Join(s.dir, log), filepath.Join(s.dir, meta)); err != nil {
				t.Fatal(err)
			}
			s = openSpool(t, s.dir)
			l, found := s.Get(k)
			if found != c.found {
				t.Errorf("found: %v", found)
			}
			if found {
				poll(t, l)
				same(t, "log", logical(t, l), []byte("hello"))
			}
			names, err := fs.Glob(os.DirFS(s.dir), "*")
			if err != nil || fmt.Sprint(names) != fmt.Sprint(c.left) {
				t.Errorf("left %v, want %v: %v", names, c.left, err)
			}
		})
	}
}

// An agent is replaced while a job of the former version's runs: that had the limit in
// the sidecar, which every log had, and not in the name.
func TestLogOfTheFormerVersion(t *testing.T) {
	dir := t.TempDir()
	file, sidecar := filepath.Join(dir, key.base()+".log"), filepath.Join(dir, key.metaName())
	slot := encodeMeta(meta{limit: MinLimit})
	if err := errors.Join(os.WriteFile(sidecar, append(slot, slot...), 0o600), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		l, ok := openSpool(t, dir).Get(key)
		if !ok || l.Path() != file { // its runner may be about to open it by that name
			t.Fatalf("round %d: the log is not there, or not where it was", round)
		}
		run(t, l).write(noise(round, MinLimit/2))
		poll(t, l)
	}
	s, l := again(t, openSpool(t, dir))
	if _, dropped := seal(t, l); dropped != MinLimit/2 {
		t.Errorf("%d bytes left out, want what is over the limit of the sidecar", dropped)
	}
	s, l = again(t, s)
	same(t, "log", logical(t, l), slices.Concat(noise(0, MinLimit/2), []byte(leftOut(MinLimit/2, MinLimit)), noise(2, MinLimit/2)))
	if err := l.Remove(); err != nil {
		t.Fatal(err)
	}
	if names, _ := os.ReadDir(s.dir); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

// Without its sidecar nobody knows the limit of such a log, so it is set aside.
func TestLogOfTheFormerVersionWithoutItsSidecar(t *testing.T) {
	const log, meta = "r.1.log", "r.1.meta"
	for _, c := range []struct {
		name    string
		sidecar []byte
		left    []string
	}{
		{"it is damaged", make([]byte, 2*slotLen), []string{log + ".damaged", meta + ".damaged"}},
		{"it is missing", nil, []string{log + ".damaged"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			err := os.WriteFile(filepath.Join(dir, log), []byte("hello"), 0o600)
			if err == nil && c.sidecar != nil {
				err = os.WriteFile(filepath.Join(dir, meta), c.sidecar, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, found := openSpool(t, dir).Get(Key{"r", 1}); found {
				t.Error("it was taken in")
			}
			names, err := fs.Glob(os.DirFS(dir), "*")
			if err != nil || !slices.Equal(names, c.left) {
				t.Errorf("left %v, want %v: %v", names, c.left, err)
			}
		})
	}
}

// An attempt that prints nothing, or little and not for long, has its file and no other;
// how long it was the next life is told.
func TestNoSidecarForWhatNeedsNone(t *testing.T) {
	for _, out := range []string{"", "hello"} {
		s, l, p := start(t, MinLimit)
		p.write([]byte(out))
		length, _ := seal(t, l)
		if names, _ := fs.Glob(os.DirFS(s.dir), "*"); len(names) != 1 {
			t.Errorf("%q: there are %v", out, names)
		}
		p.write([]byte(" from what was left behind"))
		_, l = again(t, s)
		for range 2 {
			l.Resume(length)
			if got, _ := seal(t, l); got != length || poll(t, l) != length {
				t.Errorf("%q: %d bytes after a restart", out, got)
			}
		}
		same(t, "after a restart", logical(t, l), []byte(out))
		if st, err := os.Stat(l.Path()); err != nil || st.Size() != length {
			t.Errorf("%q: what was written later takes room: %v", out, err)
		}
	}
}

// What a sidecar says of the end counts, and not what was told.
func TestResumeBelievesTheSidecar(t *testing.T) {
	s, l, p := start(t, MinLimit)
	p.write([]byte("hello"))
	poll(t, l)
	seal(t, l)
	_, l = again(t, s)
	l.Resume(3)
	same(t, "after a restart", logical(t, l), []byte("hello"))
}

func scribble(name string, off int64) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{0xaa, 0x55}, off)
	return errors.Join(err, f.Close())
}
