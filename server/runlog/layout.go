package runlog

import "sort"

// maxBlock bounds the part of a file between two entries of the index. It has
// room for 64 KiB of log in frames of 16 KiB, the usual size of a chunk.
const maxBlock = maxFrame + 1<<10

// block says where in a file a run of frames begins, and at which offset of the
// log. Its data fit into maxFrame bytes, its frames into maxBlock.
type block struct{ off, pos int64 }

// layout is what a file holds and where.
type layout struct {
	known  int64   // length of the log
	end    int64   // position in the file behind the last good data frame
	blocks []block // by offset
	ended  bool    // an end frame follows
}

// add accounts for a data frame of n bytes behind all others.
func (l *layout) add(n int) {
	size := int64(frameHeader + n)
	if i := len(l.blocks) - 1; i < 0 || l.end+size-l.blocks[i].pos > maxBlock || l.known+int64(n)-l.blocks[i].off > maxFrame {
		l.blocks = append(l.blocks, block{off: l.known, pos: l.end})
	}
	l.known += int64(n)
	l.end += size
}

// find returns the block that holds the byte at off, which must be known, and
// the position in the file where the block ends.
func (l *layout) find(off int64) (b block, stop int64) {
	i := sort.Search(len(l.blocks), func(i int) bool { return l.blocks[i].off > off })
	if i == len(l.blocks) {
		return l.blocks[i-1], l.end
	}
	return l.blocks[i-1], l.blocks[i].pos
}
