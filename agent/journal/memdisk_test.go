package journal

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"sync"
	"syscall"
)

var errCrash = errors.New("the machine is off")

// memDisk is a file system that can lose power. What was written and not
// synced may be there afterwards, or not, or in part; names that were changed
// and not synced too.
type memDisk struct {
	mu      sync.Mutex
	names   map[string]*memFile
	durable []map[string]*memFile // what a crash may leave: [0] synced, then after each change
	left    int                   // operations until the power fails; negative: never
	room    int                   // bytes by which files may grow until the disk is full; negative: no limit
	makes   int64                 // how much room journals make at a time
	syncErr error                 // what fsync of a file fails with
	ro      bool                  // it is read-only
	dirErr  error
	syncs   int
	writes  int
	gate    func(name string) // called by a file's sync before it counts, without the lock
}

type memFile struct {
	d       *memDisk
	name    string // it was opened with
	data    []byte
	synced  []byte
	pending []func(b []byte, whole func() bool) []byte
}

func newMemDisk() *memDisk {
	return &memDisk{names: map[string]*memFile{}, durable: []map[string]*memFile{{}}, left: -1, room: -1}
}

// tick counts an operation, and says whether the power is still on.
func (d *memDisk) tick() error {
	if d.left == 0 {
		return errCrash
	}
	d.left--
	return nil
}

func (d *memDisk) changed() { d.durable = append(d.durable, maps.Clone(d.names)) }

func (d *memDisk) open(name string, flag int) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.tick(); err != nil {
		return nil, err
	}
	f := d.names[name]
	switch {
	case f == nil:
		f = &memFile{d: d, name: name}
		d.names[name] = f
		d.changed()
	case flag&os.O_EXCL != 0:
		return nil, fs.ErrExist
	}
	if flag&os.O_TRUNC != 0 {
		f.truncate(0)
	}
	return f, nil
}

func (d *memDisk) rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.tick(); err != nil {
		return err
	}
	f := d.names[from]
	if f == nil {
		return fs.ErrNotExist
	}
	delete(d.names, from)
	d.names[to] = f
	d.changed()
	return nil
}

func (d *memDisk) remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.tick(); err != nil {
		return err
	}
	if d.names[name] == nil {
		return fs.ErrNotExist
	}
	delete(d.names, name)
	d.changed()
	return nil
}

func (d *memDisk) syncDir(string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := errors.Join(d.tick(), d.dirErr); err != nil {
		return err
	}
	d.durable = []map[string]*memFile{maps.Clone(d.names)}
	return nil
}

func (d *memDisk) step() int64 { return d.makes }

// crash returns the disk as it is after the power came back; pick(n) chooses
// one of n.
func (d *memDisk) crash(pick func(n int) int) *memDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	after := newMemDisk()
	after.makes = d.makes
	for name, f := range d.durable[pick(len(d.durable))] {
		b := bytes.Clone(f.synced)
		for _, op := range f.pending {
			b = op(b, func() bool { return pick(2) == 1 })
		}
		after.put(name, b)
	}
	return after
}

// put makes a synced file.
func (d *memDisk) put(name string, data []byte) {
	d.names[name] = &memFile{d: d, name: name, data: bytes.Clone(data), synced: bytes.Clone(data)}
	d.durable = []map[string]*memFile{maps.Clone(d.names)}
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.tick(); err != nil {
		f.later(p, off)
		return 0, err
	}
	f.d.writes++
	if f.d.ro {
		return 0, syscall.EROFS
	}
	var err error
	more := max(0, int(off)+len(p)-len(f.data))
	if f.d.room >= 0 && more > f.d.room {
		p, err = p[:len(p)-more+f.d.room], syscall.ENOSPC
		more = f.d.room
	}
	if f.d.room >= 0 {
		f.d.room -= more
	}
	f.data = overwrite(f.data, p, off)
	f.later(p, off)
	return len(p), err
}

// later notes a write that a crash may keep, sector by sector.
func (f *memFile) later(p []byte, off int64) {
	const sector = 48
	for p := bytes.Clone(p); len(p) > 0; {
		n := min(sector, len(p))
		part, at := p[:n], off
		f.pending = append(f.pending, func(b []byte, whole func() bool) []byte {
			if !whole() {
				return b
			}
			return overwrite(b, part, at)
		})
		p, off = p[n:], off+int64(n)
	}
}

func overwrite(b, p []byte, off int64) []byte {
	if need := int(off) + len(p); need > len(b) {
		b = append(b, make([]byte, need-len(b))...)
	}
	copy(b[off:], p)
	return b
}

func (f *memFile) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.tick(); err != nil {
		return err
	}
	if f.d.ro {
		return syscall.EROFS
	}
	f.truncate(size)
	return nil
}

func (f *memFile) truncate(size int64) {
	if f.d.room >= 0 {
		f.d.room += len(f.data) - int(size)
	}
	f.data = f.data[:size:size]
	f.pending = append(f.pending, func(b []byte, whole func() bool) []byte {
		if int64(len(b)) <= size || !whole() {
			return b
		}
		return b[:size:size]
	})
}

func (f *memFile) Sync() error {
	if f.d.gate != nil {
		f.d.gate(f.name)
	}
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.d.syncs++
	if err := errors.Join(f.d.tick(), f.d.syncErr); err != nil {
		return err
	}
	f.synced, f.pending = bytes.Clone(f.data), nil
	return nil
}

func (f *memFile) Close() error { return nil }
