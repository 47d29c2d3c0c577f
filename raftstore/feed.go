package raftstore

import (
	"sync"

	"github.com/schedd/schedd/raftstore/state"
)

// Feed gathers what changed for somebody who looks at it in his own time, such
// as a loop. What changed several times in between is told once, so that a slow
// reader holds up nobody and costs no more than there are things to change.
type Feed struct {
	wake   chan struct{}
	cancel func()

	mu   sync.Mutex // guards the following
	list []state.Change
	old  []state.Change            // what Take returned, until it is called again
	runs map[state.RunID]struct{}  // in the list: most changes are of runs, which are told apart cheaply
	seen map[state.Change]struct{} // likewise, of all others
	all  bool
}

// manyChanges is from how many changes on what tells them apart is made anew.
const manyChanges = 10_000

// Subscriber is what a feed is fed by; [Store] is one.
type Subscriber interface {
	Subscribe(f func([]state.Change)) (cancel func())
}

// NewFeed returns a feed of what changes from now on. Close it.
func NewFeed(s Subscriber) *Feed {
	f := &Feed{wake: make(chan struct{}, 1), runs: map[state.RunID]struct{}{}, seen: map[state.Change]struct{}{}}
	f.cancel = s.Subscribe(f.add)
	return f
}

// Wake receives when there is something to take.
func (f *Feed) Wake() <-chan struct{} { return f.wake }

// Close ends the feed.
func (f *Feed) Close() { f.cancel() }

// maxOld bounds the room for changes that is kept for those to come, twice for each feed.
const maxOld = 4096

// Take returns each thing that changed since it was last called, in the order in
// which they changed first, until it is called again; all tells that everything may have
// changed.
func (f *Feed) Take() (list []state.Change, all bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list, all = f.list, f.all
	f.list, f.old, f.all = f.old[:0], list, false
	if cap(list) > maxOld {
		f.old = nil // nothing may change for long, and then nobody takes anything
	}
	if len(list) > manyChanges { // a map that was large stays so
		f.runs, f.seen = map[state.RunID]struct{}{}, map[state.Change]struct{}{}
	}
	clear(f.runs)
	clear(f.seen)
	return list, all
}

// add takes the changes of one entry; nil means that everything may have
// changed.
func (f *Feed) add(changes []state.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = f.all || changes == nil
	for _, c := range changes {
		if f.isNew(c) {
			f.list = append(f.list, c)
		}
	}
	select {
	case f.wake <- struct{}{}:
	default: // it has been told already
	}
}

// isNew tells whether a change is not in the list yet, where it is put then. The caller
// holds the lock.
func (f *Feed) isNew(c state.Change) bool {
	n := len(f.runs) + len(f.seen)
	if c.Run != (state.RunID{}) {
		f.runs[c.Run] = struct{}{}
	} else {
		f.seen[c] = struct{}{}
	}
	return len(f.runs)+len(f.seen) > n
}
