package runlog

// Recent holds a value for each of some keys, and forgets what was put in longest
// ago, but never the latest max keys. It holds at most twice as many. Its owner locks
// it.
type Recent[V any] struct {
	max       int
	now, then map[Key]V
}

// NewRecent returns an empty one that holds n keys and more.
func NewRecent[V any](n int) Recent[V] { return Recent[V]{max: n, now: make(map[Key]V)} }

// Put puts in k, with a value in the place of any that it had.
func (r *Recent[V]) Put(k Key, v V) {
	if len(r.now) >= r.max {
		r.now, r.then = make(map[Key]V), r.now
	}
	r.now[k] = v
}

// Get returns the value of k, if it is in it.
func (r *Recent[V]) Get(k Key) (v V, ok bool) {
	if v, ok = r.now[k]; !ok {
		v, ok = r.then[k]
	}
	return v, ok
}

// Has tells whether k is in it.
func (r *Recent[V]) Has(k Key) bool {
	_, ok := r.Get(k)
	return ok
}

// Remove takes k out.
func (r *Recent[V]) Remove(k Key) {
	delete(r.now, k)
	delete(r.then, k)
}

// Len returns how many keys it holds.
func (r *Recent[V]) Len() int { return len(r.now) + len(r.then) }
