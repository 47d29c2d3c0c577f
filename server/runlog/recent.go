package runlog

// Recent is a set that forgets what was added longest ago, but never the latest
// max keys. It holds at most twice as many. Its owner locks it.
type Recent struct {
	max       int
	now, then map[Key]struct{}
}

// NewRecent returns an empty set that holds n keys and more.
func NewRecent(n int) Recent { return Recent{max: n, now: make(map[Key]struct{})} }

// Add puts k in.
func (r *Recent) Add(k Key) {
	if len(r.now) >= r.max {
		r.now, r.then = make(map[Key]struct{}), r.now
	}
	r.now[k] = struct{}{}
}

// Has tells whether k is in it.
func (r *Recent) Has(k Key) bool {
	_, a := r.now[k]
	_, b := r.then[k]
	return a || b
}

// Remove takes k out.
func (r *Recent) Remove(k Key) {
	delete(r.now, k)
	delete(r.then, k)
}

// Len returns how many keys it holds.
func (r *Recent) Len() int { return len(r.now) + len(r.then) }
