package runlog

// recent is a set that forgets what was added longest ago, but never the latest
// max keys. It holds at most twice as many.
type recent struct {
	max       int
	now, then map[Key]struct{}
}

func newRecent(n int) recent { return recent{max: n, now: make(map[Key]struct{})} }

func (r *recent) add(k Key) {
	if len(r.now) >= r.max {
		r.now, r.then = make(map[Key]struct{}), r.now
	}
	r.now[k] = struct{}{}
}

func (r *recent) has(k Key) bool {
	_, a := r.now[k]
	_, b := r.then[k]
	return a || b
}

func (r *recent) remove(k Key) {
	delete(r.now, k)
	delete(r.then, k)
}
