package raftstore

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/schedd/schedd/raftstore/state"
)

// publisher is what a feed is fed by, by hand.
type publisher struct{ tell func([]state.Change) }

func (p *publisher) Subscribe(f func([]state.Change)) func() {
	p.tell = f
	return func() {}
}

// What was taken stays as it is while more changes, until the feed is asked for that: its
// room is used again only then.
func TestFeedIsGoodUntilTheNext(t *testing.T) {
	var p publisher
	f := NewFeed(&p)
	worker := func(round, i int) state.Change {
		return state.Change{Worker: state.WorkerID(fmt.Sprint(round, "-", i))}
	}
	for round, n := range []int{10, 3, maxOld + 1, 5, 7} {
		var want []state.Change
		for i := range n {
			want = append(want, worker(round, i))
		}
		p.tell(want)
		p.tell(want) // each is told once
		got, all := f.Take()
		p.tell([]state.Change{worker(-1, 0), worker(-1, 1)})
		if !slices.Equal(got, want) || all {
			t.Errorf("round %d: %d changes, %v, want %d and only those", round, len(got), all, n)
		}
		if got, _ := f.Take(); len(got) != 2 {
			t.Errorf("round %d: %d changes that came after the others were taken, want 2", round, len(got))
		}
	}
}

// Who took many changes has them, and the feed does not keep them until there are more.
func TestFeedKeepsNoRoomForMany(t *testing.T) {
	var p publisher
	f := NewFeed(&p)
	var many []state.Change
	for i := range 100_000 {
		many = append(many, state.Change{Run: state.RunID{byte(i), byte(i >> 8), byte(i >> 16)}})
	}
	before := inUse()
	p.tell(many)
	take := func() int {
		got, _ := f.Take()
		return len(got)
	}
	if n := take(); n != len(many) {
		t.Errorf("%d changes were taken, want %d", n, len(many))
	}
	if took := int64(inUse() - before); took > 1<<20 {
		t.Errorf("the feed still takes %d bytes after %d changes", took, len(many))
	}
	p.tell(many[:3])
	if n := take(); n != 3 {
		t.Errorf("%d changes came later, want 3", n)
	}
}

// inUse returns how much memory can't be given back to the system.
func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}
