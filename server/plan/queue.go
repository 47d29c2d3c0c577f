package plan

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/schedd/schedd/raftstore/state"
)

// Queue is the runs that wait for a worker, oldest first, in one line for each
// way of choosing a worker. A line whose workers are all busy costs nothing. All
// of it is derived from the state and from who is connected; it belongs to one
// leader for one term.
type Queue struct {
	lines   map[state.Target]*line
	queued  map[state.RunID]bool             // in a line, or held
	held    map[uint64]map[state.RunID]*item // by job uid: wait for other runs of the job
	live    map[state.WorkerID]bool          // connected, inventory known
	workers int                              // counts changes of workers
	turn    int                              // for RoundRobin
}

// line is the runs that choose alike.
type line struct {
	target   state.Target
	selector labels.Selector // nil: it can't be parsed
	waiting  items
	matches  []state.WorkerID // workers that match, by name and id
	asOf     int              // Queue.workers when matches was made
}

type item struct {
	run    state.RunID
	serial uint64
	target state.Target
}

// items is a heap, oldest first.
type items []*item

func (h items) Len() int           { return len(h) }
func (h items) Less(i, j int) bool { return h[i].serial < h[j].serial }
func (h items) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *items) Push(x any) { *h = append(*h, x.(*item)) }

// Pop implements heap.Interface.
func (h *items) Pop() any {
	old := *h
	n := len(old) - 1
	x := old[n]
	old[n] = nil
	*h = old[:n]
	return x
}

// NewQueue returns an empty queue.
func NewQueue() *Queue {
	return &Queue{
		lines:  map[state.Target]*line{},
		queued: map[state.RunID]bool{},
		held:   map[uint64]map[state.RunID]*item{},
		live:   map[state.WorkerID]bool{},
	}
}

// Add puts a pending run in its line. Adding it again changes nothing.
func (q *Queue) Add(r *state.Run) {
	if q.queued[r.ID] {
		return
	}
	q.queued[r.ID] = true
	q.push(&item{run: r.ID, serial: r.Serial, target: r.Definition.Target})
}

func (q *Queue) push(it *item) {
	l := q.lines[it.target]
	if l == nil {
		l = &line{target: it.target, asOf: -1}
		l.selector, _ = labels.Parse(it.target.Selector)
		q.lines[it.target] = l
	}
	heap.Push(&l.waiting, it)
}

// Release takes note that a run of the job has ended: those that waited for it
// may go.
func (q *Queue) Release(uid uint64) {
	for _, it := range q.held[uid] {
		q.push(it)
	}
	delete(q.held, uid)
}

// SetLive says whether a worker can be given runs now.
func (q *Queue) SetLive(w state.WorkerID, live bool) {
	if live {
		q.live[w] = true
	} else {
		delete(q.live, w)
	}
}

// NoteWorker takes note that a worker was added, changed or removed.
func (q *Queue) NoteWorker() { q.workers++ }

// Place returns assignments for the runs that can go now, at most limit, and
// takes them out: those that are refused have to be added again.
func (q *Queue) Place(s *state.State, limit int) []state.Command {
	p := placing{q: q, s: s, load: map[state.WorkerID]int{}, begun: map[uint64]int{}}
	for target, l := range q.lines {
		if l.waiting.Len() > 0 && len(p.cmds) < limit {
			p.line(l, limit)
		}
		if l.waiting.Len() == 0 {
			delete(q.lines, target)
		}
	}
	return p.cmds
}

// placing is one call of Place: what it has given away so far.
type placing struct {
	q     *Queue
	s     *state.State
	load  map[state.WorkerID]int // given to each worker
	begun map[uint64]int         // given away of each job
	cmds  []state.Command
}

func (p *placing) line(l *line, limit int) {
	free := p.free(l)
	for len(free) > 0 && l.waiting.Len() > 0 && len(p.cmds) < limit {
		it := heap.Pop(&l.waiting).(*item)
		r := p.s.Run(it.run)
		if r == nil || r.Phase != state.Pending {
			delete(p.q.queued, it.run)
			continue
		}
		if p.mustWait(r) {
			p.hold(r, it)
			continue
		}
		i := p.choose(r, l.target.Strategy, free)
		w := free[i]
		p.cmds = append(p.cmds, state.Assign{Run: r.ID, Attempt: len(r.Attempts) + 1, Worker: w.ID})
		delete(p.q.queued, r.ID)
		p.load[w.ID]++
		p.begun[r.UID]++
		if p.room(w) <= 0 {
			free = slices.Delete(free, i, i+1)
		}
	}
}

// free returns the workers of the line that can take a run.
func (p *placing) free(l *line) []*state.Worker {
	q := p.q
	if l.asOf != q.workers {
		l.matches, l.asOf = matching(p.s, l.selector), q.workers
	}
	var free []*state.Worker
	for _, id := range l.matches {
		w := p.s.Worker(id)
		if w != nil && q.live[id] && w.Drain == nil && w.Offline.IsZero() && p.room(w) > 0 {
			free = append(free, w)
		}
	}
	return free
}

// matching returns the workers that a selector matches, by name and id.
func matching(s *state.State, sel labels.Selector) []state.WorkerID {
	if sel == nil {
		return nil
	}
	var ws []*state.Worker
	for _, w := range s.Workers() {
		if sel.Matches(labels.Set(w.Labels())) {
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

func (p *placing) room(w *state.Worker) int { return w.Slots() - p.s.Load(w.ID) - p.load[w.ID] }

// mustWait reports whether other runs of the job have to end first.
func (p *placing) mustWait(r *state.Run) bool {
	policy := &r.Definition.Policy
	return policy.Overlap != state.OverlapAllow && onWorkers(p.s, r.UID)+p.begun[r.UID] >= policy.MaxConcurrent
}

// onWorkers returns how many runs of a job workers have.
func onWorkers(s *state.State, uid uint64) (n int) {
	for _, r := range s.ActiveRuns(uid) {
		if r.Live() != nil {
			n++
		}
	}
	return n
}

func (p *placing) hold(r *state.Run, it *item) {
	held := p.q.held[r.UID]
	if held == nil {
		held = map[state.RunID]*item{}
		p.q.held[r.UID] = held
	}
	held[r.ID] = it
}

// choose returns the index of the worker that the run goes to. A worker on
// which it was tried last comes into question only when there is no other.
func (p *placing) choose(r *state.Run, how state.Strategy, free []*state.Worker) int {
	from := indexes(len(free))
	if n := len(r.Attempts); n > 0 && len(free) > 1 {
		from = slices.DeleteFunc(from, func(i int) bool { return free[i].ID == r.Attempts[n-1].Worker })
	}
	switch how {
	case state.RoundRobin:
		p.q.turn++
		return from[p.q.turn%len(from)]
	case state.Random:
		return from[int(state.Mix(r.Created.Add(time.Duration(r.Serial)))%uint64(len(from)))]
	case state.PreferFirst:
		return from[0]
	case state.Spread:
		return p.least(from, func(i int) float64 { return float64(p.ofJobOn(r.UID, free[i].ID)) })
	default:
		return p.least(from, func(i int) float64 {
			return float64(p.s.Load(free[i].ID)+p.load[free[i].ID]) / float64(free[i].Slots())
		})
	}
}

func indexes(n int) []int {
	ix := make([]int, n)
	for i := range ix {
		ix[i] = i
	}
	return ix
}

func (p *placing) least(from []int, weight func(int) float64) int {
	return slices.MinFunc(from, func(a, b int) int { return cmp.Compare(weight(a), weight(b)) })
}

// ofJobOn returns how many runs of a job a worker has or is about to get.
func (p *placing) ofJobOn(uid uint64, w state.WorkerID) (n int) {
	for _, r := range p.s.ActiveRuns(uid) {
		if a := r.Live(); a != nil && a.Worker == w {
			n++
		}
	}
	for _, c := range p.cmds {
		if a, ok := c.(state.Assign); ok && a.Worker == w {
			if r := p.s.Run(a.Run); r != nil && r.UID == uid {
				n++
			}
		}
	}
	return n
}

// WhyPending says in a sentence why a pending run waits.
func WhyPending(s *state.State, r *state.Run, now time.Time) string {
	var why []string
	if r.Reason != "" {
		why = append(why, r.Reason)
	}
	return strings.Join(append(why, waitsFor(s, r, now)), "; ")
}

func waitsFor(s *state.State, r *state.Run, now time.Time) string {
	policy := &r.Definition.Policy
	switch {
	case r.NotBefore.After(now) && len(r.Attempts) > 0:
		return fmt.Sprintf("waits until %s for attempt %d", r.NotBefore.UTC().Format(time.RFC3339), len(r.Attempts)+1)
	case r.NotBefore.After(now):
		return "waits until " + r.NotBefore.UTC().Format(time.RFC3339) + " because of the trigger's jitter"
	}
	if n := onWorkers(s, r.UID); policy.Overlap != state.OverlapAllow && n >= policy.MaxConcurrent {
		return "waits for " + count(n, "active run", "active runs") + " of the job to end"
	}
	return "waits for a worker: " + whyNoWorker(s, r.Definition.Target.Selector)
}

func whyNoWorker(s *state.State, selector string) string {
	sel, err := labels.Parse(selector)
	if err != nil {
		return fmt.Sprintf("the selector %q can't be read: %v", selector, err)
	}
	ids := matching(s, sel)
	of := "the workers"
	if selector != "" {
		of = fmt.Sprintf("the workers that match %q", selector)
	}
	var there, full, draining int
	for _, id := range ids {
		w := s.Worker(id)
		switch {
		case !w.Offline.IsZero():
		case w.Drain != nil:
			draining++
		default:
			there++
			if s.Load(id) >= w.Slots() {
				full++
			}
		}
	}
	switch {
	case len(ids) == 0 && selector == "":
		return "none has ever connected"
	case len(ids) == 0:
		return fmt.Sprintf("none matches %q", selector)
	case there == 0 && draining > 0:
		return fmt.Sprintf("of %s, %d are draining and the others are offline", of, draining)
	case there == 0:
		return "all of " + of + " are offline"
	case full == there:
		return "all slots of " + of + " are in use"
	}
	return "about to be assigned"
}
