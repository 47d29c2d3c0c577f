package plan

import (
	"cmp"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/schedd/schedd/raftstore/state"
)

// choice is the workers that match a wish, by name and id.
type choice []state.WorkerID

// maxChoices bounds how many are remembered; there are as many as jobs choose differently.
const maxChoices = 1000

// NoteWorker takes note that a worker was added, changed or removed; then w is nil. Who comes
// into question for a wish is sorted out anew only if it is another one by what wishes go by:
// when a load balancer is away for long, ten thousand workers go offline and come back.
func (q *Queue) NoteWorker(id state.WorkerID, w *state.Worker) {
	q.changed = true
	if !alike(q.noted[id], w) {
		clear(q.choices)
	}
	if w == nil {
		delete(q.noted, id)
		return
	}
	q.noted[id] = w
}

// alike tells whether two versions of a worker match the same wishes, in the same place.
func alike(a, b *state.Worker) bool {
	return a != nil && b != nil && a.Says.Name == b.Says.Name && a.Enforcement == b.Enforcement &&
		maps.Equal(a.Says.Labels, b.Says.Labels) && maps.Equal(a.ExtraLabels, b.ExtraLabels)
}

// choice returns the workers that match a wish. To sort them out costs some time when
// there are many, and lines come and go with each run.
func (q *Queue) choice(s *state.State, w wish) choice {
	c, known := q.choices[w]
	if !known {
		selector, _ := labels.Parse(w.Selector) // none of one that can't be parsed
		c = matching(s, selector, w.limits)
		if len(q.choices) >= maxChoices {
			clear(q.choices)
		}
		if q.knows(s) {
			q.choices[w] = c
		}
	}
	return c
}

// knows tells whether the queue has heard of all that the state says of workers, by what
// wishes go by. Of a worker that was removed in this moment, and is back in the next, it
// would not hear that it was another one in between.
func (q *Queue) knows(s *state.State) bool {
	n := 0
	for _, w := range s.Workers() {
		if noted := q.noted[w.ID]; noted != w && !alike(noted, w) {
			return false
		}
		n++
	}
	return n == len(q.noted)
}

// matching returns the workers that a selector matches, and that can keep limits, by
// name and id.
func matching(s *state.State, sel labels.Selector, limits state.Limits) []state.WorkerID {
	if sel == nil {
		return nil
	}
	var ws []*state.Worker
	for _, w := range s.Workers() {
		if sel.Matches(labels.Set(w.Labels())) && w.Enforcement.Keeps(limits) {
			ws = append(ws, w)
		}
	}
	slices.SortFunc(ws, func(a, b *state.Worker) int {
		return cmp.Or(cmp.Compare(a.Says.Name, b.Says.Name), cmp.Compare(a.ID, b.ID))
	})
	ids := make([]state.WorkerID, len(ws))
	for i, w := range ws {
		ids[i] = w.ID
	}
	return ids
}
