package baseline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// pageSize is how much is written for each sync, in bytes: a page, the least that any log
// writes.
const pageSize = 4096

// Disk is a file in which one page after the other is written, each synced as by
// fdatasync(2), as a log does that has its room already.
type Disk struct {
	file *os.File
	page []byte
	next int64
}

// pages are how many a Disk has. It begins anew after the last one.
const pages = 256

// NewDisk makes such a file in a directory. Whoever has one has to Close it.
func NewDisk(dir string) (*Disk, error) {
	f, err := os.OpenFile(filepath.Join(dir, "synced"), os.O_WRONLY|os.O_CREATE|os.O_EXCL|dsync, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make a file to measure how fast the disk syncs: %w", err)
	}
	d := &Disk{file: f, page: bytes.Repeat([]byte{1}, pageSize)} // which are not the zeros that it has
	if _, err := f.Write(make([]byte, pages*pageSize)); err != nil {
		return nil, errors.Join(fmt.Errorf("fill the file by which it is measured how fast the disk syncs: %w", err), d.Close())
	}
	return d, nil
}

// Sync writes a page, and returns how long it took until it was on disk.
func (d *Disk) Sync(ctx context.Context) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	begin := time.Now()
	if _, err := d.file.WriteAt(d.page, d.next%pages*pageSize); err != nil {
		return 0, fmt.Errorf("measure how fast the disk syncs: %w", err)
	}
	d.next++
	return time.Since(begin), nil
}

// Close removes the file.
func (d *Disk) Close() error { return errors.Join(d.file.Close(), os.Remove(d.file.Name())) }
