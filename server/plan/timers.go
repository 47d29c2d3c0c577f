package plan

import "time"

// Timers is a set of keys, each with the instant at which to look at it again.
// Setting, moving and taking one out costs O(log n), however many there are. The
// zero value is not ready; use [NewTimers].
type Timers[K comparable] struct{ byTime *ranking[K, time.Time] }

// NewTimers returns an empty set.
func NewTimers[K comparable]() *Timers[K] {
	return &Timers[K]{newRanking[K](time.Time.Compare)}
}

// Len returns how many keys are set.
func (t *Timers[K]) Len() int { return len(t.byTime.items) }

// Next returns the earliest instant, or the zero time when none is set.
func (t *Timers[K]) Next() time.Time {
	first, _ := t.byTime.first()
	return first.rank
}

// Due reports whether it is time at now to look at a key.
func (t *Timers[K]) Due(k K, now time.Time) bool {
	i, set := t.byTime.index[k]
	return set && !t.byTime.items[i].rank.After(now)
}

// Set sets or moves a key. The zero time removes it.
func (t *Timers[K]) Set(k K, at time.Time) {
	if at.IsZero() {
		t.byTime.remove(k)
		return
	}
	t.byTime.set(k, at)
}

// Remove takes a key out. It may be missing.
func (t *Timers[K]) Remove(k K) { t.byTime.remove(k) }

// Pop takes out one key that is due at now, the earliest first.
func (t *Timers[K]) Pop(now time.Time) (k K, ok bool) {
	first, ok := t.byTime.first()
	if !ok || first.rank.After(now) {
		return k, false
	}
	t.byTime.remove(first.key)
	return first.key, true
}
