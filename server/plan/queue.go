package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/schedd/schedd/raftstore/state"
)

// Queue is the runs that wait for a worker, those first that have waited longest, in one
// line for each way of choosing a worker. All of it is derived from the state and from who is
// connected; it belongs to one leader for one term.
type Queue struct {
	lines    map[wish]*line
	wishes   *Table[state.RunID, wish]        // of each run in a line, or held
	held     map[uint64]held                  // by job uid: they wait for other runs of the job
	given    map[state.RunID]uint64           // the job uids of those that Place has given away last
	expected map[state.RunID]*state.Run       // see Expect; they are in lines as well
	ending   map[uint64]*state.Run            // see Expect; by fence, whose attempt ends
	live     map[state.WorkerID]bool          // connected, inventory known
	leases   map[state.WorkerID]bool          // can keep leases, by its latest session
	choices  map[wish]choice                  // who comes into question, until a worker is another
	noted    map[state.WorkerID]*state.Worker // as they were when NoteWorker was told last
	changed  bool                             // something that Place goes by, since it gave nothing more
	turn     int                              // for RoundRobin
}

// wish is what a run asks of its worker.
type wish struct {
	state.Target
	limits state.Limits // which of them there are: their sizes are no matter
	leases bool         // only one that can keep leases
}

// limitNames names the limits as a job's definition does.
func (w wish) limitNames() string {
	var names []string
	for _, x := range []struct {
		asked int64
		name  string
	}{{w.limits.Memory, "memory_bytes"}, {w.limits.CPUMillis, "cpus"}, {w.limits.PIDs, "pids"}} {
		if x.asked > 0 {
			names = append(names, x.name)
		}
	}
	return strings.Join(names, ", ")
}

func wishOf(d *state.Definition) wish {
	some := func(n int64) int64 { return min(n, 1) }
	l := d.Task.Limits
	return wish{d.Target, state.Limits{Memory: some(l.Memory), CPUMillis: some(l.CPUMillis), PIDs: some(l.PIDs)}, d.Policy.KillAfter > 0}
}

// line is the runs that choose alike.
type line struct {
	wish    wish
	waiting *ranking[state.RunID, place]
}

// place is a run's place in the lines, and among those that are held: by when it could have
// begun, and not by when it was made. Runs of the same second that each have a jitter of
// their own were made together; by that, one that came due at the beginning of the second
// would wait for all that were made before it and came due until its end.
type place struct {
	since  int64 // in nanoseconds
	serial uint64
}

func placeOf(r *state.Run) place { return place{QueuedSince(r).UnixNano(), r.Serial} }

func (p place) compare(other place) int {
	return cmp.Or(cmp.Compare(p.since, other.since), cmp.Compare(p.serial, other.serial))
}

func newLine() *ranking[state.RunID, place] { return newRanking[state.RunID](place.compare) }

// NewQueue returns an empty queue.
func NewQueue() *Queue {
	return &Queue{
		lines:    map[wish]*line{},
		wishes:   NewTable[state.RunID, wish](),
		held:     map[uint64]held{},
		given:    map[state.RunID]uint64{},
		expected: map[state.RunID]*state.Run{},
		ending:   map[uint64]*state.Run{},
		choices:  map[wish]choice{},
		noted:    map[state.WorkerID]*state.Worker{},
		live:     map[state.WorkerID]bool{},
		leases:   map[state.WorkerID]bool{},
	}
}

// Add puts a pending run in its line. Adding it again changes nothing.
func (q *Queue) Add(r *state.Run) {
	if _, there := q.wishes.Get(r.ID); !there {
		q.wishes.Set(r.ID, wishOf(r.Definition))
		q.wait(r.ID, placeOf(r))
	}
}

// wait puts a run in its line.
func (q *Queue) wait(id state.RunID, at place) {
	w, _ := q.wishes.Get(id)
	l := q.lines[w]
	if l == nil {
		l = &line{wish: w, waiting: newLine()}
		q.lines[w] = l
	}
	l.waiting.set(id, at)
	q.changed = true
}

// Forget takes out a run that waits no longer. It need not be there.
func (q *Queue) Forget(id state.RunID, uid uint64) {
	w, there := q.wishes.Get(id)
	if !there {
		return
	}
	q.wishes.Delete(id)
	if l := q.lines[w]; l != nil {
		l.waiting.remove(id)
		if len(l.waiting.items) == 0 {
			delete(q.lines, w)
		}
	}
	for _, h := range q.held[uid] {
		h.remove(id)
	}
	q.tidy(uid)
}

// SetLive says whether a worker can be given runs now.
func (q *Queue) SetLive(w state.WorkerID, live bool) {
	if live {
		q.live[w], q.changed = true, true
	} else {
		delete(q.live, w)
	}
}

// SetLeases says whether a worker can keep leases: others are given no run that needs
// them.
func (q *Queue) SetLeases(w state.WorkerID, can bool) {
	if can {
		q.leases[w], q.changed = true, true
	} else {
		delete(q.leases, w)
	}
}

// Waiting tells whether any run waits, for a worker or for others of its job.
func (q *Queue) Waiting() bool { return len(q.lines) > 0 || len(q.held) > 0 }

// manyWorkers is from how many on LeastBusy takes it that one has hardly any runs: to look at
// all of them each time would cost more than what it is asked for saves.
const manyWorkers = 64

// LeastBusy is how many runs the worker has that has the fewest, of those who are connected
// and have any; 0 when there is none.
func (q *Queue) LeastBusy(s *state.State) (least int) {
	if len(q.live) >= manyWorkers {
		return 1
	}
	for w := range q.live {
		if n := s.Load(w); n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	return least
}

// NoteRun takes note that a run has changed: there may be room. [Queue.Release] says for
// whom of its job.
func (q *Queue) NoteRun() { q.changed = true }

// Place returns assignments for the runs that can go now, at most limit, and
// takes them out: those that are refused have to be added again. The line whose
// first run has waited longest goes first. With a limit of 0 it gives nothing to anybody.
//
// It looks only when the queue was told of a change: a leader steps for each ping that
// asks for leases, a thousand times a second if there are many workers, and to look at
// all of them takes milliseconds, for which the state is held.
func (q *Queue) Place(s *state.State, limit int) []state.Command {
	defer q.forgetExpected()
	if !q.changed || len(q.lines) == 0 || limit == 0 {
		return nil
	}
	q.changed = false
	clear(q.given)
	p := placing{q: q, s: s, load: map[state.WorkerID]int{}, begun: map[uint64]int{}, spread: map[uint64]map[state.WorkerID]int{}}
	p.leave()
	if !p.anyRoom() {
		return nil
	}
	lines := slices.SortedFunc(maps.Values(q.lines), func(a, b *line) int {
		return a.waiting.items[0].rank.compare(b.waiting.items[0].rank)
	})
	for _, l := range lines {
		p.line(l, limit)
		if len(l.waiting.items) == 0 {
			delete(q.lines, l.wish)
		}
	}
	q.changed = q.changed || len(p.cmds) >= limit // some may be left
	return p.cmds
}

// placing is one call of Place: what it has given away so far.
type placing struct {
	q      *Queue
	s      *state.State
	load   map[state.WorkerID]int            // given to each worker, less what is ending there
	begun  map[uint64]int                    // given away of each job
	spread map[uint64]map[state.WorkerID]int // for Spread: runs of a job on each worker
	cmds   []state.Command
}

// anyRoom tells whether any worker could take a run, so that the lines need not
// be looked at while all are busy.
func (p *placing) anyRoom() bool {
	for id := range p.q.live {
		if w := p.s.Worker(id); w != nil && p.takes(w) {
			return true
		}
	}
	return false
}

func (p *placing) line(l *line, limit int) {
	free := p.free(l)
	for len(free) > 0 && len(p.cmds) < limit {
		first, ok := l.waiting.first()
		if !ok {
			return
		}
		l.waiting.remove(first.key)
		r := p.run(first.key)
		if r == nil || r.Phase != state.Pending {
			p.q.wishes.Delete(first.key)
			continue
		}
		if p.mustWait(r) {
			p.hold(r)
			continue
		}
		i := p.choose(r, l.wish.Strategy, free)
		w := free[i]
		p.give(r, w)
		if p.room(w) <= 0 {
			free = slices.Delete(free, i, i+1)
		}
	}
}

// run returns a run that is there, or is expected to be.
func (p *placing) run(id state.RunID) *state.Run {
	if r := p.s.Run(id); r != nil {
		return r
	}
	return p.q.expected[id]
}

// give assigns a run to a worker.
func (p *placing) give(r *state.Run, w *state.Worker) {
	p.cmds = append(p.cmds, state.Assign{Run: r.ID, Attempt: len(r.Attempts) + 1, Worker: w.ID})
	p.q.wishes.Delete(r.ID)
	p.q.given[r.ID] = r.UID
	p.load[w.ID]++
	p.begun[r.UID]++
	if on := p.spread[r.UID]; on != nil {
		on[w.ID]++
	}
}

// free returns the workers of the line that can take a run.
func (p *placing) free(l *line) []*state.Worker {
	q := p.q
	var free []*state.Worker
	for _, id := range q.choice(p.s, l.wish) {
		w := p.s.Worker(id)
		if w != nil && q.live[id] && (!l.wish.leases || q.leases[id]) && p.takes(w) {
			free = append(free, w)
		}
	}
	return free
}

// takes tells whether a worker that is connected can take a run.
func (p *placing) takes(w *state.Worker) bool {
	return w.Drain == nil && w.Offline.IsZero() && p.room(w) > 0
}

func (p *placing) room(w *state.Worker) int { return w.Slots() - p.s.Load(w.ID) - p.load[w.ID] }

// choose returns the index of the worker that the run goes to.
func (p *placing) choose(r *state.Run, how state.Strategy, free []*state.Worker) int {
	from := preferred(r, free)
	switch how {
	case state.RoundRobin:
		p.q.turn++
		return from[p.q.turn%len(from)]
	case state.Random:
		return from[int(state.Mix(r.Created.Add(time.Duration(r.Serial)))%uint64(len(from)))]
	case state.PreferFirst:
		return from[0]
	case state.Spread:
		on := p.ofJob(r.UID)
		return p.least(from, func(i int) float64 { return float64(on[free[i].ID]) })
	default:
		return p.least(from, func(i int) float64 {
			return float64(p.s.Load(free[i].ID)+p.load[free[i].ID]) / float64(free[i].Slots())
		})
	}
}

// preferred returns the indexes of the workers that come into question. A worker on which
// the run was tried last does only when there is no other, and one on which it began last,
// before others refused it, when there is none but those two.
func preferred(r *state.Run, free []*state.Worker) []int {
	n := len(r.Attempts)
	if n == 0 || len(free) == 1 {
		return others(free)
	}
	last, began := r.Attempts[n-1].Worker, n
	for began > 1 && r.Attempts[began-1].NeverBegan() {
		began--
	}
	if from := others(free, last, r.Attempts[began-1].Worker); len(from) > 0 {
		return from
	}
	return others(free, last)
}

// others returns the indexes of all workers but these.
func others(free []*state.Worker, but ...state.WorkerID) []int {
	ix := make([]int, 0, len(free))
	for i, w := range free {
		if !slices.Contains(but, w.ID) {
			ix = append(ix, i)
		}
	}
	return ix
}

// least returns the first with the least weight.
func (p *placing) least(from []int, weight func(int) float64) int {
	best, least := from[0], weight(from[0])
	for _, i := range from[1:] {
		if w := weight(i); w < least {
			best, least = i, w
		}
	}
	return best
}

// ofJob returns how many runs of a job each worker has or is about to get.
func (p *placing) ofJob(uid uint64) map[state.WorkerID]int {
	if p.spread[uid] == nil {
		on := map[state.WorkerID]int{}
		for _, r := range p.s.ActiveRuns(uid) {
			if a := r.Live(); a != nil && p.q.ending[a.Fence] == nil {
				on[a.Worker]++
			}
		}
		for _, c := range p.cmds {
			if a, ok := c.(state.Assign); ok && p.run(a.Run).UID == uid {
				on[a.Worker]++
			}
		}
		p.spread[uid] = on
	}
	return p.spread[uid]
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
	policy := r.Definition.Policy
	switch {
	case r.NotBefore.After(now) && len(r.Attempts) > 0:
		return fmt.Sprintf("waits until %s for attempt %d", r.NotBefore.UTC().Format(time.RFC3339), len(r.Attempts)+1)
	case r.NotBefore.After(now):
		return "waits until " + r.NotBefore.UTC().Format(time.RFC3339) + " because of the trigger's jitter"
	}
	if n := s.NumLive(r.UID); policy.Overlap != state.OverlapAllow && n >= policy.MaxConcurrent {
		return "waits for " + count(n, "active run", "active runs") + " of the job to end"
	}
	why := whyNoWorker(s, wishOf(r.Definition))
	if why == aboutToBe && policy.KillAfter > 0 {
		why += ", to one of a version that knows kill_after; if that takes long, upgrade schedagent there"
	}
	return "waits for a worker: " + why
}

func whyNoWorker(s *state.State, w wish) string {
	selector := w.Selector
	sel, err := labels.Parse(selector)
	if err != nil {
		return fmt.Sprintf("the selector %q can't be read: %v", selector, err)
	}
	ids := matching(s, sel, w.limits)
	of := "the workers"
	if selector != "" {
		of = fmt.Sprintf("the workers that match %q", selector)
	}
	if any := matching(s, sel, state.Limits{}); len(any) > 0 && len(ids) == 0 {
		return fmt.Sprintf("none of %s can keep the job's limits (%s); what each can, its enforcement tells", of, w.limitNames())
	}
	if w.limits != (state.Limits{}) {
		of += " and can keep the job's limits"
		if selector == "" {
			of = "the workers that can keep the job's limits"
		}
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
	return aboutToBe
}

// aboutToBe is why a run waits that need not.
const aboutToBe = "about to be assigned"
