package runlog

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

const (
	frameHeader = 16
	maxFrame    = 64 << 10 // bytes of a log in one frame; bounds what a small read must check

	kindData = 1
	kindEnd  = 2 // no data; offset is the length of the log, all of which is durable
)

// frame is a piece of a log as it lies in the file.
type frame struct {
	kind byte
	off  int64
	data []byte
}

func (f frame) size() int { return frameHeader + len(f.data) }

// seedOf is where the checksums of a log's frames start from. It ties a frame to
// the format and the log: one that strayed into another file is a bad frame.
func seedOf(k Key) uint32 {
	return Checksum(fmt.Appendf(nil, "schedd run log 1\n%s\n%d\n%d", k.Run, k.Attempt, k.Fence))
}

// appendHead appends to b what comes before a frame's data, which have the checksum sum.
func appendHead(b []byte, seed uint32, f frame, sum uint32) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(f.kind)<<24|uint32(len(f.data)))
	b = binary.LittleEndian.AppendUint64(b, uint64(f.off))
	head := crc32.Update(seed, castagnoli, b[start+4:])
	binary.LittleEndian.PutUint32(b[start:], joined(head, sum, len(f.data)))
	return b
}

// sizeFrom tells from its header how long a frame is, and whether that can be.
func sizeFrom(head []byte) (int, bool) {
	word := binary.LittleEndian.Uint32(head[4:])
	n := int(word & 0xffffff)
	switch word >> 24 {
	case kindData:
		return frameHeader + n, n > 0 && n <= maxFrame
	case kindEnd:
		return frameHeader, n == 0
	default:
		return 0, false
	}
}

// decodeFrame decodes the frame at the beginning of b. Its data are part of b.
func decodeFrame(b []byte, seed uint32) (frame, bool) {
	if len(b) < frameHeader {
		return frame{}, false
	}
	size, ok := sizeFrom(b)
	if !ok || len(b) < size {
		return frame{}, false
	}
	if binary.LittleEndian.Uint32(b) != crc32.Update(seed, castagnoli, b[4:size]) {
		return frame{}, false
	}
	off := int64(binary.LittleEndian.Uint64(b[8:]))
	return frame{kind: b[7], off: off, data: b[frameHeader:size]}, off >= 0
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 2*(frameHeader+maxFrame)) }}

// scan reads a file from its beginning, as far as its frames are good and follow
// one another, and returns where everything is. keep, if not nil, is given the
// encoded data frames. An error is one of reading or keeping; a bad frame is none, it
// is where the log ends.
func scan(r io.Reader, seed uint32, keep func(raw []byte) error) (layout, error) {
	br := readers.Get().(*bufio.Reader)
	br.Reset(r)
	defer func() { br.Reset(nil); readers.Put(br) }()

	var l layout
	for {
		raw, err := peekFrame(br)
		if err != nil || raw == nil {
			return l, err
		}
		f, ok := decodeFrame(raw, seed)
		if !ok || f.off != l.known {
			return l, nil
		}
		if f.kind == kindEnd {
			l.ended = true
			return l, nil
		}
		if keep != nil {
			if err := keep(raw); err != nil {
				return l, err
			}
		}
		l.add(len(f.data))
		if _, err := br.Discard(len(raw)); err != nil {
			return l, err // cannot be: these bytes were peeked at
		}
	}
}

// peekFrame returns as many bytes as the next frame says it has, or nil where
// there is no whole frame any more.
func peekFrame(br *bufio.Reader) ([]byte, error) {
	raw, err := br.Peek(frameHeader)
	if err == nil {
		size, ok := sizeFrom(raw)
		if !ok {
			return nil, nil
		}
		raw, err = br.Peek(size)
	}
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	return raw, err
}
