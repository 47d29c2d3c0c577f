package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

const (
	// asideBytes bounds all logs that are set aside, in bytes, so that they never fill
	// the disk.
	asideBytes = 128 << 20
	// asideFiles bounds how many there are.
	asideFiles = 100
)

// errTooLong is returned for a log that is longer than all that may be set aside.
var errTooLong = fmt.Errorf("it is longer than the %d bytes that are kept of such logs", asideBytes)

// SetAside takes a log out of the spool that will never be shipped, and keeps a copy for
// people, whose path it returns: the logical log, in a directory beside the spool. The
// oldest ones go to make room for it. It is not synced. After an error the log is where
// it was.
func (l *Log) SetAside() (path string, err error) {
	if path, err = l.copyAside(); err != nil {
		return "", fmt.Errorf("set the spool log of run %q attempt %d aside: %w", l.key.Run, l.key.Attempt, err)
	}
	return path, l.Remove()
}

func (l *Log) copyAside() (path string, err error) {
	if err := l.enter(); err != nil {
		return "", err
	}
	defer l.leave()
	l.spool.setting <- struct{}{}
	defer func() { <-l.spool.setting }()
	dir := l.spool.dir + "-refused"
	if err := makeRoom(dir, l.meta.end()); err != nil {
		return "", err
	}
	path = filepath.Join(dir, l.key.formerLogName())
	if err := l.copyTo(path); err != nil {
		return "", errors.Join(err, os.Remove(path))
	}
	return path, nil
}

// copyTo writes the logical log to a file.
func (l *Log) copyTo(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, 64<<10)
	for off, end := int64(0), l.meta.end(); off < end; {
		p := buf[:min(int64(len(buf)), end-off)]
		if err := l.read([][]byte{p}, off); err != nil {
			return err
		}
		if _, err := f.Write(p); err != nil {
			return err
		}
		off += int64(len(p))
	}
	return nil
}

// makeRoom makes the directory of what is set aside if it is not there, and deletes the
// oldest files in it until there may be one more of that size.
func makeRoom(dir string, size int64) error {
	if size > asideBytes {
		return errTooLong
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var files []fs.FileInfo
	for _, n := range names {
		if info, err := n.Info(); err == nil && info.Mode().IsRegular() { // an error: somebody removed it
			files = append(files, info)
			size += info.Size()
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for ; size > asideBytes || len(files) >= asideFiles; files = files[1:] {
		if err := os.Remove(filepath.Join(dir, files[0].Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		size -= files[0].Size()
	}
	return nil
}
