package journal

import (
	"errors"
	"fmt"
	"os"
)

// file is what the journal needs of an open file.
type file interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// disk is what the journal needs of a file system. It is here so that a test
// can crash it at every step.
type disk interface {
	open(name string, flag int) (file, error)
	rename(from, to string) error
	remove(name string) error
	syncDir(dir string) error
	step() int64 // how much room is made at a time; 0: none
}

// Disk is the one that a journal is on, for tests that know what it does. What is nil is
// the operating system's.
type Disk struct {
	// Fsync has a file, or a directory, stay when the power fails.
	Fsync func(*os.File) error
	// WriteAt writes to a file, or tells why there is no room.
	WriteAt func(f *os.File, p []byte, off int64) (int, error)
}

// realDisk is the operating system's, but for what tests have put in its place.
type realDisk struct{ Disk }

// realFile is a file of it.
type realFile struct {
	*os.File
	disk Disk
}

func (f realFile) Sync() error {
	if f.disk.Fsync != nil {
		return f.disk.Fsync(f.File)
	}
	return datasync(f.File)
}

func (f realFile) WriteAt(p []byte, off int64) (int, error) {
	if f.disk.WriteAt != nil {
		return f.disk.WriteAt(f.File, p, off)
	}
	return f.File.WriteAt(p, off)
}

func (d realDisk) open(name string, flag int) (file, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err // not f: it would be a file that isn't nil
	}
	return realFile{f, d.Disk}, nil
}

func (realDisk) rename(from, to string) error { return os.Rename(from, to) }
func (realDisk) remove(name string) error     { return os.Remove(name) }

func (d realDisk) syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	fsync := d.Fsync
	if fsync == nil {
		fsync = (*os.File).Sync
	}
	return errors.Join(fsync(f), f.Close())
}

// step is 0 where tests say what the power takes: they go by how long a file is.
func (d realDisk) step() int64 {
	if d.Fsync != nil {
		return 0
	}
	return roomStep
}

// create makes a new file with what is in it, synced.
func create(d disk, name string, flag int, data []byte) (file, error) {
	f, err := d.open(name, os.O_RDWR|os.O_CREATE|flag)
	if err != nil {
		return nil, fmt.Errorf("create %q: %w", name, err)
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("write %d bytes to %q: %w", len(data), name, err), f.Close())
	}
	if err := f.Sync(); err != nil {
		return nil, errors.Join(fmt.Errorf("sync %q: %w", name, err), f.Close())
	}
	return f, nil
}
