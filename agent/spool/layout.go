package spool

import (
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"slices"
)

const (
	// maxCuts bounds the parts of a log whose process rewrites its output.
	maxCuts = 8

	// window is how many of the last reported bytes are recognised again.
	window = 512

	cutLine  = "\n[schedd: the output was truncated or rewritten here, by the process or a crash; bytes above that were not read in time are zeros]\n"
	leftLine = "\n[schedd: %d bytes left out here: over the log limit of %d bytes]\n"
)

// meta is all that must outlive a restart, and the rules by which file and
// logical log belong together. It is a value: a change is saved before it is
// believed.
type meta struct {
	seq    uint64 // of the sidecar's slot
	limit  int64
	cuts   []int64 // reported lengths of earlier contents of the file; never changed in place
	mark   int64   // bytes of the file that are reported, while it isn't sealed
	sum    uint32  // of the last window of these
	hole   int64   // end of the hole in the file, 0 without one
	acked  int64   // bytes of the logical log that were acknowledged when it was cut last
	sealed bool
	total  int64 // length of the file when it was sealed
}

// room is how many bytes from the file's start belong to the head.
func (m meta) room() int64 {
	room := m.limit / 2
	for _, n := range m.cuts {
		room -= n
	}
	if len(m.cuts) >= maxCuts {
		return 0
	}
	return room
}

func (m meta) tailLimit() int64 { return m.limit - m.limit/2 }

// cut closes the present part: what was reported stays, the file starts anew.
func (m *meta) cut() {
	m.cuts = append(slices.Clone(m.cuts), m.mark)
	m.mark, m.sum, m.hole = 0, 0, 0
}

// tail returns where the tail begins in the sealed file, and how many bytes are
// left out before it.
func (m meta) tail() (from, dropped int64) {
	if !m.sealed {
		return 0, 0
	}
	room := m.room()
	from = max(room, m.total-m.tailLimit(), min(m.hole, m.total))
	if m.total <= room || from == room {
		return min(room, m.total), 0
	}
	return from, from - room
}

// piece is a range of the logical log: a text, bytes of the file from src, or
// bytes that are gone.
type piece struct {
	n    int64
	text string
	src  int64
	gone bool
}

func (m meta) pieces() []piece {
	var ps []piece
	text := func(s string) { ps = append(ps, piece{n: int64(len(s)), text: s}) }
	for _, n := range m.cuts {
		ps = append(ps, piece{n: n, gone: true})
		text(cutLine)
	}
	if !m.sealed {
		return append(ps, piece{n: m.mark})
	}
	from, dropped := m.tail()
	ps = append(ps, piece{n: from - dropped})
	if dropped > 0 {
		text(fmt.Sprintf(leftLine, dropped, m.limit))
	}
	return append(ps, piece{n: m.total - from, src: from})
}

// end is the length of the logical log as far as it is reported.
func (m meta) end() (n int64) {
	for _, p := range m.pieces() {
		n += p.n
	}
	return n
}

// readParts is read for what follows one another.
func (m meta) readParts(f *os.File, parts [][]byte, off int64) (gone int64, err error) {
	gone = math.MaxInt64
	for _, b := range parts {
		first, err := m.read(f, b, off)
		if err != nil {
			return 0, err
		}
		gone = min(gone, first)
		off += int64(len(b))
	}
	return gone, nil
}

// read fills b with the logical log from off on, all of which is before its end.
// f, which may be nil, is the file; what it lacks is read as zeros. It returns
// where the first of these stands that are there in the place of other bytes.
func (m meta) read(f *os.File, b []byte, off int64) (gone int64, err error) {
	gone = math.MaxInt64
	start := int64(0) // of the piece
	for _, p := range m.pieces() {
		from := max(off, start) - start
		if len(b) == 0 || from >= p.n {
			start += p.n
			continue
		}
		part := b[:min(int64(len(b)), p.n-from)]
		there := len(part)
		switch {
		case p.text != "":
			copy(part, p.text[from:])
		case p.gone:
			there = 0
		default:
			if there, err = readFile(f, part, p.src+from); err != nil {
				return 0, err
			}
		}
		if there < len(part) {
			clear(part[there:])
			gone = min(gone, start+from+int64(there))
		}
		b = b[len(part):]
		start += p.n
	}
	return gone, nil
}

// readFile reads what the file has of b; without a file that is nothing.
func readFile(f *os.File, b []byte, off int64) (int, error) {
	if f == nil {
		return 0, nil
	}
	n, err := f.ReadAt(b, off)
	if err == io.EOF { //nolint:errorlint // never wrapped
		err = nil
	}
	return n, err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fingerprint is the checksum of the last bytes of f before mark, if they are
// there.
func fingerprint(f *os.File, mark int64) (sum uint32, whole bool) {
	b := make([]byte, min(mark, window))
	if f == nil {
		return 0, len(b) == 0
	}
	n, _ := f.ReadAt(b, mark-int64(len(b)))
	return crc32.Checksum(b[:n], castagnoli), n == len(b)
}
