package plan

import "time"

// Timers is a set of keys, each with the instant at which to look at it again: a
// binary heap with an index, so that setting, moving and taking one out cost
// O(log n) however many there are. The zero value is not ready; use
// [NewTimers].
type Timers[K comparable] struct {
	heap  []timer[K]
	index map[K]int // where in heap
}

type timer[K comparable] struct {
	key K
	at  time.Time
}

// NewTimers returns an empty set.
func NewTimers[K comparable]() *Timers[K] {
	return &Timers[K]{index: map[K]int{}}
}

// Len returns how many keys are set.
func (t *Timers[K]) Len() int { return len(t.heap) }

// Next returns the earliest instant, or the zero time when none is set.
func (t *Timers[K]) Next() time.Time {
	if len(t.heap) == 0 {
		return time.Time{}
	}
	return t.heap[0].at
}

// Set sets or moves a key. The zero time removes it.
func (t *Timers[K]) Set(k K, at time.Time) {
	i, ok := t.index[k]
	switch {
	case at.IsZero():
		t.Remove(k)
	case !ok:
		t.heap = append(t.heap, timer[K]{k, at})
		t.index[k] = len(t.heap) - 1
		t.up(len(t.heap) - 1)
	default:
		t.heap[i].at = at
		t.fix(i)
	}
}

// Remove takes a key out. It may be missing.
func (t *Timers[K]) Remove(k K) {
	i, ok := t.index[k]
	if !ok {
		return
	}
	last := len(t.heap) - 1
	t.swap(i, last)
	t.heap = t.heap[:last]
	delete(t.index, k)
	if i < last {
		t.fix(i)
	}
}

// Pop takes out one key that is due at now, the earliest first.
func (t *Timers[K]) Pop(now time.Time) (k K, ok bool) {
	if len(t.heap) == 0 || t.heap[0].at.After(now) {
		return k, false
	}
	k = t.heap[0].key
	t.Remove(k)
	return k, true
}

func (t *Timers[K]) fix(i int) {
	t.up(i)
	t.down(i)
}

func (t *Timers[K]) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !t.heap[i].at.Before(t.heap[parent].at) {
			return
		}
		t.swap(i, parent)
		i = parent
	}
}

func (t *Timers[K]) down(i int) {
	for {
		least := i
		for _, c := range [...]int{2*i + 1, 2*i + 2} {
			if c < len(t.heap) && t.heap[c].at.Before(t.heap[least].at) {
				least = c
			}
		}
		if least == i {
			return
		}
		t.swap(i, least)
		i = least
	}
}

func (t *Timers[K]) swap(i, j int) {
	t.heap[i], t.heap[j] = t.heap[j], t.heap[i]
	t.index[t.heap[i].key], t.index[t.heap[j].key] = i, j
}
