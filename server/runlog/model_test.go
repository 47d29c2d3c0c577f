package runlog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// fact is what a caller of the store may rely on.
type fact struct {
	known, durable int64 // as last answered
	length         int64 // told last; -1: not sealed
}

// model is a store on a disk that fails, and the facts that must hold.
type model struct {
	dir   string
	disk  *disk
	store *Store
	facts map[Key]*fact
}

func (m *model) start(t *rapid.T) {
	m.store = openWith(t, m.dir, m.disk.fsync)
	m.store.maxOpen = 2
}

func (m *model) pick(t *rapid.T) (Key, *fact) {
	k := Key{Run: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "run"), Attempt: rapid.Uint32Range(1, 2).Draw(t, "attempt"), Fence: rapid.Uint64Range(7, 8).Draw(t, "fence")}
	if m.facts[k] == nil {
		m.facts[k] = &fact{length: -1}
	}
	return k, m.facts[k]
}

func (m *model) append(t *rapid.T) {
	k, f := m.pick(t)
	off := max(0, f.known+rapid.OneOf(rapid.Just[int64](0), rapid.Int64Range(-300, 20), rapid.Int64Range(-f.known, 0)).Draw(t, "offset"))
	n := rapid.OneOf(rapid.IntRange(0, 400), rapid.IntRange(0, 3*maxFrame)).Draw(t, "bytes")
	data := printed(k, off, n)
	want, wantErr := f.known, error(nil)
	switch stop := off + int64(n); {
	case f.length >= 0 && n > 0 && stop > f.length:
		if off <= f.known {
			want = f.length
		}
		if want == f.length {
			wantErr = ErrSealed
		}
	case off <= f.known:
		want = max(want, stop)
	}
	known, err := m.store.Append(k, off, data, Checksum(data))
	if errors.Is(err, ErrUnavailable) {
		want, wantErr = f.known, ErrUnavailable // the copy failed, too
	}
	if known != want || !errors.Is(err, wantErr) {
		t.Fatalf("append %v [%d,+%d): known %d, %v, want %d, %v", k, off, n, known, err, want, wantErr)
	}
	f.known = known
}

func (m *model) sync(t *rapid.T) {
	k, f := m.pick(t)
	durable, err := m.store.Sync(context.Background(), k)
	if err != nil && !errors.Is(err, ErrUnavailable) || err == nil && durable != f.known || durable < f.durable && m.survived(k) {
		t.Fatalf("sync %v: %d, %v; before %+v", k, durable, err, f)
	}
	f.durable = max(f.durable, durable)
}

// survived tells whether the store knows of Syncs that an earlier life answered.
func (m *model) survived(k Key) bool {
	i, _ := m.store.Stat(k)
	return i.Durable > 0
}

func (m *model) seal(t *rapid.T) {
	k, f := m.pick(t)
	length := f.length
	if length < 0 {
		length = f.known + rapid.SampledFrom([]int64{0, 0, 1, 1000, -1}).Draw(t, "missing")
	}
	want := error(nil)
	switch {
	case length < 0:
		want = ErrInvalid
	case length < f.known:
		want = ErrSealed
	default:
		f.length = length
	}
	err := m.store.Seal(k, length)
	if err == nil && length == 0 && want != nil {
		return // nobody had looked at the file; it will be believed
	}
	if !errors.Is(err, want) {
		t.Fatalf("seal %v at %d: %v, want %v", k, length, err, want)
	}
}

func (m *model) remove(t *rapid.T) {
	k, f := m.pick(t)
	if err := m.store.Remove(k); err != nil {
		t.Fatalf("remove %v: %v", k, err)
	}
	*f = fact{length: -1}
}

func (m *model) read(t *rapid.T) {
	k, f := m.pick(t)
	off := rapid.Int64Range(0, f.known+10).Draw(t, "from")
	p := make([]byte, rapid.IntRange(1, 2*maxFrame).Draw(t, "size"))
	n, err := m.store.Read(k, p, off)
	want := printed(k, off, int(max(0, min(f.known-off, int64(len(p))))))
	if !bytes.Equal(p[:n], want) || err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("read %v at %d: %d bytes, %v, want %d", k, off, n, err, len(want))
	}
}

func (m *model) breakDisk(t *rapid.T) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	m.disk.fails = rapid.IntRange(1, 2).Draw(t, "failing fsyncs")
}

// kill is SIGKILL: all that was written stays, memory is gone.
func (m *model) kill(t *rapid.T) {
	m.store.Close()
	m.start(t)
	for k, f := range m.facts {
		i, _ := m.store.Stat(k)
		if i.Known != f.known {
			t.Fatalf("%v: known %d after a restart, was %d", k, i.Known, f.known)
		}
		m.recall(t, k, f, i)
	}
}

// cutPower loses what was not fsync'ed, or some of it, or garbles it.
func (m *model) cutPower(t *rapid.T) {
	m.store.Close()
	m.disk.cutPower(t, m.dir)
	m.start(t)
	for k, f := range m.facts {
		i, _ := m.store.Stat(k)
		if i.Known < f.durable || i.Known > f.known {
			t.Fatalf("%v: known %d after a power cut, durable was %d, known %d", k, i.Known, f.durable, f.known)
		}
		f.known = i.Known
		m.recall(t, k, f, i)
	}
}

// recall checks what a new process says of a seal, and takes it for a fact.
func (m *model) recall(t *rapid.T, k Key, f *fact, i Info) {
	if i.Sealed && i.Length != f.length {
		t.Fatalf("%v: sealed at %d after a restart, told %d", k, i.Length, f.length)
	}
	if !i.Sealed {
		f.length = -1
	}
}

func (m *model) check(t *rapid.T) {
	for k, f := range m.facts {
		i, _ := m.store.Stat(k)
		want := Info{Known: f.known, Durable: i.Durable, Sealed: f.length >= 0, Length: max(f.length, 0), Complete: f.known == f.length}
		if i != want || i.Durable > i.Known {
			t.Fatalf("%v: %+v, want %+v", k, i, want)
		}
		f.durable = max(f.durable, i.Durable) // said, so it must hold
		if got := content(t, m.store, k); !bytes.Equal(got, printed(k, 0, int(f.known))) {
			t.Fatalf("%v: %d bytes differ from what was printed", k, len(got))
		}
	}
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	if m.store.open > m.store.maxOpen {
		t.Fatalf("%d files open", m.store.open)
	}
}

// What was acknowledged as durable survives everything, unchanged, and what is
// known is always a prefix of what the attempt printed.
func TestModel(t *testing.T) {
	home, lives := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		lives++
		dir := filepath.Join(home, strconv.Itoa(lives))
		m := &model{dir: dir, disk: newDisk(), facts: map[Key]*fact{}}
		defer m.disk.close()
		m.start(t)
		defer func() { m.store.Close() }()
		t.Repeat(map[string]func(*rapid.T){
			"":         m.check,
			"append":   m.append,
			"append 2": m.append,
			"append 3": m.append,
			"sync":     m.sync,
			"sync 2":   m.sync,
			"seal":     m.seal,
			"read":     m.read,
			"remove":   m.remove,
			"break":    m.breakDisk,
			"kill":     m.kill,
			"cut":      m.cutPower,
		})
	})
}
