package plan

import "maps"

// Table is a map that gives back its room when few are left of many: one of Go's that was
// large stays so. The zero value is not ready; use [NewTable].
type Table[K comparable, V any] struct {
	all  map[K]V
	most int // that were in it since it was made
}

// NewTable returns an empty table.
func NewTable[K comparable, V any]() *Table[K, V] { return &Table[K, V]{all: map[K]V{}} }

// Len returns how many keys are in it.
func (t *Table[K, V]) Len() int { return len(t.all) }

// Get returns what is there for a key, and whether anything is.
func (t *Table[K, V]) Get(k K) (v V, ok bool) {
	v, ok = t.all[k]
	return v, ok
}

// Set puts in, or replaces, what is there for a key.
func (t *Table[K, V]) Set(k K, v V) { t.all[k] = v }

// Delete takes a key out. It may be missing.
func (t *Table[K, V]) Delete(k K) {
	t.most = max(t.most, len(t.all))
	delete(t.all, k)
	if isSparse(len(t.all), t.most) {
		all := make(map[K]V, len(t.all))
		maps.Copy(all, t.all)
		t.all, t.most = all, len(all)
	}
}

// many is from how many on the room of those that are gone is worth to be given back. Fewer
// may come and go each second.
const many = 4096

// isSparse tells whether so few are left of many that it is worth it. That costs less than to take
// the others out did.
func isSparse(left, most int) bool { return most > many && left <= most/4 }
