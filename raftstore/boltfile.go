package raftstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"
)

// boltPatience is how long another user of the file is waited for. Our own lock is held
// by then, so there should be none.
const boltPatience = 5 * time.Second

// verifyBolt reads through the tree in the log's file before bbolt opens it. It reads
// all of it too, but believes what it finds: a page that leads back to itself takes all
// memory, one that makes no sense ends the program from a goroutine that nobody can
// catch it in, and with one description of the file that is not whole bbolt goes back by
// a transaction without a word, which may have been a vote.
func verifyBolt(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // nothing was written
	info, err := f.Stat()
	if err != nil || info.Size() == 0 { // it was being made
		return err
	}
	b := &boltFile{r: f, pageSize: int64(os.Getpagesize()), seen: map[uint64]bool{}}
	root, err := b.metas()
	if err != nil {
		return err
	}
	return b.walk(root, "", nil, nil)
}

// bbolt's file: pages, of which the first two each describe the file as it was after
// one of the last two transactions. Numbers are the machine's own:
//
//	page     id u64, kind u16, count u16, overflow u32 (more pages that belong to it)
//	meta     magic u32, version u32, page size u32, flags u32, root u64, sequence u64,
//	         freelist u64, pages u64, transaction u64, FNV-64a u64 of all before
//	branch   count times: place u32 (of the key, from here), length u32, page u64
//	leaf     count times: flags u32, place u32 (of the key, and the value behind it), length u32, length u32
//	bucket   a value with the flag 1: root u64, sequence u64; with root 0 a page follows
const (
	boltHeader  = 16
	boltElement = 16
	boltMeta    = 64
	boltMagic   = 0xED0CDAED
	boltBranch  = 1
	boltLeaf    = 2
	boltBucket  = 1 // of a value's flags

	boltLogs   = "logs" // the buckets
	boltValues = "conf"
)

var boltOrder = binary.NativeEndian

// boltFile is the file as it is read through.
type boltFile struct {
	r        io.ReaderAt
	pageSize int64
	pages    uint64          // how many there are
	seen     map[uint64]bool // pages that were come by: each belongs to one
}

// metas sees that both descriptions are whole, and returns the root of the newer one.
func (b *boltFile) metas() (root uint64, err error) {
	newest := uint64(0)
	for page := range int64(2) {
		p := make([]byte, boltHeader+boltMeta)
		if _, err := b.r.ReadAt(p, page*b.pageSize); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		meta, sum := p[boltHeader:], fnv.New64a()
		_, _ = sum.Write(meta[:boltMeta-8]) // never fails
		if boltOrder.Uint32(meta) != boltMagic || boltOrder.Uint64(meta[boltMeta-8:]) != sum.Sum64() {
			return 0, fmt.Errorf("page %d: %w", page, errAltered)
		}
		b.pageSize = int64(boltOrder.Uint32(meta[8:]))
		if transaction := boltOrder.Uint64(meta[48:]); transaction >= newest {
			newest, root, b.pages = transaction, boltOrder.Uint64(meta[16:]), boltOrder.Uint64(meta[40:])
		}
	}
	return root, nil
}

// senseless is a page of which bbolt could make nothing, or the wrong thing.
func senseless(id uint64, format string, args ...any) error {
	return fmt.Errorf("page %d makes no sense: %s", id, fmt.Sprintf(format, args...))
}

// page reads a page, with those that belong to it.
func (b *boltFile) page(id uint64) (data []byte, err error) {
	head := make([]byte, boltHeader)
	if id < 2 || id >= b.pages {
		return nil, senseless(id, "there are %d", b.pages)
	}
	if _, err := b.r.ReadAt(head, int64(id)*b.pageSize); err != nil {
		return nil, fmt.Errorf("reading page %d: %w", id, err)
	}
	more := uint64(boltOrder.Uint32(head[12:]))
	if boltOrder.Uint64(head) != id || id+more >= b.pages {
		return nil, senseless(id, "it says that it is %d, and %d more", boltOrder.Uint64(head), more)
	}
	for i := id; i <= id+more; i++ {
		if b.seen[i] {
			return nil, senseless(id, "page %d belongs to another one", i)
		}
		b.seen[i] = true
	}
	data = make([]byte, int64(1+more)*b.pageSize)
	if _, err := b.r.ReadAt(data, int64(id)*b.pageSize); err != nil {
		return nil, fmt.Errorf("reading page %d: %w", id, err)
	}
	return data, nil
}

// walk reads the page id, which belongs to a bucket ("": to the one that holds them),
// and whose keys have to be from low to, but not with, high, and all below it.
func (b *boltFile) walk(id uint64, in string, low, high []byte) error {
	data, err := b.page(id)
	if err != nil {
		return err
	}
	elements, err := elementsOf(id, data)
	if err != nil {
		return err
	}
	for i, e := range elements {
		if i > 0 && bytes.Compare(elements[i-1].key, e.key) >= 0 || bytes.Compare(e.key, low) < 0 || high != nil && bytes.Compare(e.key, high) >= 0 {
			return senseless(id, "key %d of %d is not in order", i, len(elements))
		}
		switch {
		case e.branch:
			end := high
			if i+1 < len(elements) {
				end = elements[i+1].key
			}
			err = b.walk(e.child, in, e.key, end)
		case !e.known(in):
			err = senseless(id, "nobody has written %q in %q", e.key, in)
		case e.bucket:
			err = b.bucket(id, string(e.key), e.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// known tells whether that is something which the log's store writes in a bucket. What is
// there by another name is missing by its own.
func (e boltItem) known(in string) bool {
	switch in {
	case "":
		return e.bucket && (string(e.key) == boltLogs || string(e.key) == boltValues)
	case boltLogs:
		return !e.bucket && len(e.key) == 8
	}
	return !e.bucket && slices.Contains(raftValues, string(e.key))
}

// bucket reads a bucket that is in page id.
func (b *boltFile) bucket(id uint64, name string, value []byte) error {
	if len(value) < boltHeader {
		return senseless(id, "a bucket of %d bytes", len(value))
	}
	if root := boltOrder.Uint64(value); root != 0 {
		return b.walk(root, name, nil, nil)
	}
	if value = value[boltHeader:]; len(value) < boltHeader {
		return senseless(id, "a bucket's page of %d bytes", len(value))
	}
	elements, err := elementsOf(id, value)
	for i, e := range elements {
		if e.branch || !e.known(name) || i > 0 && bytes.Compare(elements[i-1].key, e.key) >= 0 {
			return senseless(id, "key %d of a bucket's page", i)
		}
	}
	return err
}

// boltItem is one thing in a page: a page below it, or a value.
type boltItem struct {
	key    []byte
	branch bool
	child  uint64
	bucket bool
	value  []byte
}

// elementsOf takes a page apart.
func elementsOf(id uint64, data []byte) (list []boltItem, err error) {
	kind, count := boltOrder.Uint16(data[8:]), int(boltOrder.Uint16(data[10:]))
	if kind != boltBranch && kind != boltLeaf || boltHeader+count*boltElement > len(data) || kind == boltBranch && count == 0 {
		return nil, senseless(id, "%d elements of kind %d", count, kind)
	}
	// What the elements lead to comes right behind them, without a gap: one that is
	// missing in the count is seen by what it leaves.
	end := int64(boltHeader + count*boltElement)
	for i := range count {
		at := boltHeader + i*boltElement
		head := data[at : at+boltElement]
		item := boltItem{branch: kind == boltBranch}
		place, length, more := boltOrder.Uint32(head), boltOrder.Uint32(head[4:]), uint32(0)
		if item.branch {
			item.child = boltOrder.Uint64(head[8:])
		} else {
			item.bucket = place == boltBucket
			if place > boltBucket {
				return nil, senseless(id, "element %d has the flags %x", i, place)
			}
			place, length, more = length, boltOrder.Uint32(head[8:]), boltOrder.Uint32(head[12:])
		}
		from := int64(at) + int64(place)
		to := from + int64(length) + int64(more)
		if from != end || length == 0 || to > int64(len(data)) {
			return nil, senseless(id, "element %d is from %d to %d, where the one before it ends at %d", i, from, to, end)
		}
		end = to
		item.key, item.value = data[from:from+int64(length)], data[from+int64(length):to]
		list = append(list, item)
	}
	return list, nil
}
