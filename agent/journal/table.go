package journal

import (
	"cmp"
	"fmt"
	"slices"
)

// table is what the records of the file add up to.
type table struct {
	entries map[Key]*Entry
	acked   map[Key]uint64 // tombstones: the fence
	order   []Key          // of acked, oldest first
	high    uint64         // the highest fence accepted
	floor   uint64         // unknown attempts up to this fence are refused; 0 when nothing was lost
	live    int64          // bytes that a rewritten file would take
	bound   int            // on tombstones
}

func newTable() *table {
	return &table{entries: map[Key]*Entry{}, acked: map[Key]uint64{}, bound: Tombstones}
}

// apply adds r without asking whether it is in order: what was appended was
// checked, and what was read is all there is, even if damage took some of it.
func (t *table) apply(r *Record) {
	if r.Kind == floor {
		t.floor = max(t.floor, r.Fence)
		t.high = max(t.high, r.Fence)
		return
	}
	t.high = max(t.high, r.Fence)
	if _, gone := t.acked[r.Key]; gone {
		return
	}
	if r.Kind == Acked {
		t.bury(r)
		return
	}
	e := t.entries[r.Key]
	if e == nil {
		e = &Entry{Key: r.Key, Fence: r.Fence}
		t.entries[r.Key] = e
	}
	if at := e.step(r.Kind); *at == nil {
		*at = r
		t.live += int64(frameSize(r))
	}
}

// bury puts a tombstone in the place of r's attempt.
func (t *table) bury(r *Record) {
	if e := t.entries[r.Key]; e != nil {
		for _, old := range e.records() {
			t.live -= int64(frameSize(old))
		}
		delete(t.entries, r.Key)
	}
	t.acked[r.Key] = r.Fence
	t.order = append(t.order, r.Key)
	t.live += tombSize(r.Key)
	for len(t.order) > t.bound {
		old := t.order[0]
		t.order = t.order[1:]
		delete(t.acked, old)
		t.live -= tombSize(old)
	}
}

// records returns what must be written to say all that t knows, except the
// floor: tombstones in their order, then the attempts.
func (t *table) records() []*Record {
	var recs []*Record
	for _, k := range t.order {
		recs = append(recs, &Record{Kind: Acked, Key: k, Fence: t.acked[k]})
	}
	for _, e := range t.list() {
		recs = append(recs, e.records()...)
	}
	return recs
}

// list returns the attempts not yet acknowledged, in the order of their fences.
func (t *table) list() []Entry {
	es := make([]Entry, 0, len(t.entries))
	for _, e := range t.entries {
		es = append(es, *e)
	}
	slices.SortFunc(es, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Fence, b.Fence), cmp.Compare(a.Key.Run, b.Key.Run), cmp.Compare(a.Key.Attempt, b.Key.Attempt))
	})
	return es
}

func tombSize(k Key) int64 { return int64(frameSize(&Record{Kind: Acked, Key: k})) }

// step returns the place of a record of kind k, which is not Acked.
func (e *Entry) step(k Kind) **Record {
	switch k {
	case Accepted:
		return &e.Accepted
	case Started:
		return &e.Started
	default:
		return &e.Exited
	}
}

func (e *Entry) records() []*Record {
	return slices.DeleteFunc([]*Record{e.Accepted, e.Started, e.Exited}, func(r *Record) bool { return r == nil })
}

// slot is what is known of one key.
type slot struct {
	entry Entry
	acked bool
}

func (t *table) at(k Key) (slot, bool) {
	if fence, ok := t.acked[k]; ok {
		return slot{Entry{Key: k, Fence: fence}, true}, true
	}
	if e := t.entries[k]; e != nil {
		return slot{*e, false}, true
	}
	return slot{}, false
}

// layer is what is known when slots have been added to what is below.
type layer struct {
	below interface{ at(Key) (slot, bool) }
	slots map[Key]slot
}

func (l layer) at(k Key) (slot, bool) {
	if s, ok := l.slots[k]; ok {
		return s, true
	}
	return l.below.at(k)
}

// add adds recs, or returns which rule forbids one of them; then l is of no use.
func (l layer) add(recs []*Record, floor uint64) error {
	for _, r := range recs {
		s, known := l.at(r.Key)
		if err := s.allows(r, known); err != nil {
			return fmt.Errorf("append %v of run %q attempt %d: %w", r.Kind, r.Key.Run, r.Key.Attempt, err)
		}
		if !known && r.Fence <= floor && floor > 0 {
			return fmt.Errorf("append %v of run %q attempt %d with fence %d, not above %d: %w",
				r.Kind, r.Key.Run, r.Key.Attempt, r.Fence, floor, ErrUncertain)
		}
		if !known {
			s.entry = Entry{Key: r.Key, Fence: r.Fence}
		}
		if s.acked = r.Kind == Acked; !s.acked {
			*s.entry.step(r.Kind) = r
		}
		l.slots[r.Key] = s
	}
	return nil
}

// allows returns the rule that r breaks, coming after what s holds.
func (s slot) allows(r *Record, known bool) error {
	switch {
	case r.Kind == Accepted && known && r.Fence > s.entry.Fence:
		return fmt.Errorf("fence %d, accepted before with %d: %w, %w", r.Fence, s.entry.Fence, ErrFence, ErrExists)
	case r.Kind == Accepted && known:
		return ErrExists
	case r.Kind == Accepted:
		return nil
	case !known || s.acked:
		return ErrOrder
	case r.Fence != s.entry.Fence:
		return fmt.Errorf("fence %d, accepted with %d: %w", r.Fence, s.entry.Fence, ErrFence)
	case r.Kind == Acked && s.entry.Exited == nil:
		return ErrOrder
	case r.Kind != Acked && *s.entry.step(r.Kind) != nil:
		return ErrExists
	case r.Kind == Started && s.entry.Exited != nil:
		return ErrOrder
	}
	return nil
}
