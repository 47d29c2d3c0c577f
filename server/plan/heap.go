package plan

// ranking is a binary heap with an index: the least first, and setting, moving
// and taking out whichever costs O(log n).
type ranking[K comparable, R any] struct {
	compare func(a, b R) int
	items   []ranked[K, R]
	index   map[K]int // where in items
}

type ranked[K comparable, R any] struct {
	key  K
	rank R
}

func newRanking[K comparable, R any](compare func(a, b R) int) *ranking[K, R] {
	return &ranking[K, R]{compare: compare, index: map[K]int{}}
}

// first returns the least; ok is false when there is none.
func (h *ranking[K, R]) first() (least ranked[K, R], ok bool) {
	if len(h.items) == 0 {
		return least, false
	}
	return h.items[0], true
}

// set puts a key in, or moves it.
func (h *ranking[K, R]) set(k K, r R) {
	i, ok := h.index[k]
	if !ok {
		i = len(h.items)
		h.items = append(h.items, ranked[K, R]{})
		h.index[k] = i
	}
	h.items[i] = ranked[K, R]{k, r}
	h.fix(i)
}

// remove takes a key out. It may be missing.
func (h *ranking[K, R]) remove(k K) {
	i, ok := h.index[k]
	if !ok {
		return
	}
	last := len(h.items) - 1
	h.swap(i, last)
	h.items[last] = ranked[K, R]{}
	h.items = h.items[:last]
	delete(h.index, k)
	if i < last {
		h.fix(i)
	}
	if isSparse(last, cap(h.items)) {
		h.giveBack()
	}
}

// giveBack makes list and index anew, with room for about as many as there are.
func (h *ranking[K, R]) giveBack() {
	h.items = append(make([]ranked[K, R], 0, 2*len(h.items)), h.items...)
	h.index = make(map[K]int, len(h.items))
	for i := range h.items {
		h.index[h.items[i].key] = i
	}
}

func (h *ranking[K, R]) fix(i int) { h.down(h.up(i)) }

func (h *ranking[K, R]) up(i int) int {
	for i > 0 {
		parent := (i - 1) / 2
		if h.compare(h.items[i].rank, h.items[parent].rank) >= 0 {
			break
		}
		h.swap(i, parent)
		i = parent
	}
	return i
}

func (h *ranking[K, R]) down(i int) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(h.items); c++ {
			if h.compare(h.items[c].rank, h.items[least].rank) < 0 {
				least = c
			}
		}
		if least == i {
			return
		}
		h.swap(i, least)
		i = least
	}
}

func (h *ranking[K, R]) swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	h.index[h.items[i].key], h.index[h.items[j].key] = i, j
}
