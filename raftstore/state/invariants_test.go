package state_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/schedd/schedd/raftstore/raftstoretest"
	"github.com/schedd/schedd/raftstore/state"
)

// What must hold after each command of any history.
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := state.New()
		w := raftstoretest.NewWalk(t, s)
		c := &checker{T: t, s: s, final: map[state.RunID]state.Phase{}, decided: map[state.TrackKey]*decided{}, versions: map[any]string{}}
		for range rapid.IntRange(1, 50).Draw(t, "entries") {
			e := w.Entry()
			for _, command := range e.Commands {
				c.apply(command, e.Now)
			}
		}
		c.oldVersions()
	})
}

// checker remembers what it needs to see that nothing goes wrong.
type checker struct {
	*rapid.T
	s        *state.State
	index    uint64
	serial   uint64 // the greatest seen
	final    map[state.RunID]state.Phase
	decided  map[state.TrackKey]*decided
	trimmed  bool
	versions map[any]string // all that was handed out, and how it looked
}

// decided is what was decided of a trigger over all its definitions.
type decided struct {
	last   time.Time
	count  int64
	digest uint64
}

func (c *checker) apply(command state.Command, now time.Time) {
	c.index++
	before := c.s.Now()
	result := c.s.Apply(c.index, state.Entry{Now: now, Commands: []state.Command{command}})[0]
	changes := c.s.TakeChanges()
	switch {
	case c.s.Now().Before(before):
		c.Fatalf("time went back from %v to %v", before, c.s.Now())
	case c.s.Index() != c.index:
		c.Fatalf("index %d after entry %d", c.s.Index(), c.index)
	case result.Err != nil && len(changes) > 0:
		c.Fatalf("%T was rejected (%v), and changed %+v", command, result.Err, changes)
	}
	c.result(command, result)
	c.runs()
	c.derived()
	c.ledger()
	c.jumps()
	c.remember()
}

// jumps: the clock jumped forward, and one time after the other.
func (c *checker) jumps() {
	var last state.Jump
	for _, j := range c.s.Jumps() {
		if !j.Is.After(j.Was) || j.Was.Before(last.Is) {
			c.Fatalf("a jump from %v to %v after one to %v", j.Was, j.Is, last.Is)
		}
		last = j
	}
}

func (c *checker) result(command state.Command, result state.Result) {
	if result.Err != nil {
		return
	}
	switch command := command.(type) {
	case state.Assign:
		w := c.s.Worker(command.Worker)
		if load := c.s.Load(w.ID); load > w.Slots() {
			c.Fatalf("worker %s was given the %d. of %d", w.ID, load, w.Slots())
		}
		if fence := result.Run.Live().Fence; fence <= c.serial {
			c.Fatalf("fence %d after %d", fence, c.serial)
		}
	case state.Decide:
		k := state.TrackKey{UID: command.UID, Trigger: command.Trigger}
		if c.decided[k] == nil {
			c.decided[k] = &decided{}
		}
		for _, d := range command.Decisions {
			if !d.First.After(c.decided[k].last) {
				c.Fatalf("the occurrence %v of %v was decided again, after %v", d.First, k, c.decided[k].last)
			}
			c.decided[k].last = d.Last
			c.decided[k].count += d.Count
			c.decided[k].digest += d.Digest
		}
	case state.Prune:
		c.trimmed = c.trimmed || !command.LedgerBefore.IsZero()
	}
}

// runs: a final phase is never left, and what is new has a greater number than
// all before.
func (c *checker) runs() {
	serial := c.serial
	var last uint64
	for r := range c.s.RunsByBirth() {
		if r.Serial <= last {
			c.Fatalf("run %v is out of order", r.ID)
		}
		last = r.Serial
		serial = max(serial, r.Serial)
		for _, a := range r.Attempts {
			serial = max(serial, a.Fence)
		}
		if p, ok := c.final[r.ID]; ok && p != r.Phase {
			c.Fatalf("run %v moved from %v to %v", r.ID, p, r.Phase)
		}
		if r.Phase.Final() {
			c.final[r.ID] = r.Phase
		}
		if r.Phase.Final() != (r.Definition == nil) || r.Phase.Final() == r.Finished.IsZero() {
			c.Fatalf("run %v is %v, finished %v, with definition %v", r.ID, r.Phase, r.Finished, r.Definition)
		}
		if live := r.Live(); live != nil && live.Outcome != state.Unfinished {
			c.Fatalf("run %v is %v, and its attempt has ended: %v", r.ID, r.Phase, live.Outcome)
		}
	}
	for id := range c.final {
		if c.s.Run(id) == nil {
			delete(c.final, id) // pruned; it may be asked for again
		}
	}
	c.serial = serial
}

// derived: what is kept for speed is what the runs say.
func (c *checker) derived() {
	var live []state.RunID
	on, active := map[state.WorkerID][]state.RunID{}, map[uint64][]state.RunID{}
	uids := map[uint64]bool{}
	n, going := 0, 0
	for r := range c.s.RunsByBirth() {
		if n++; c.s.Run(r.ID) != r {
			c.Fatalf("run %v is another version by birth than by id", r.ID)
		}
		uids[r.UID] = true
		if a := r.Live(); a != nil {
			live = append(live, r.ID)
			on[a.Worker] = append(on[a.Worker], r.ID)
		}
		if !r.Phase.Final() {
			active[r.UID] = append(active[r.UID], r.ID)
			going++
		}
	}
	if going != c.s.NumAllActive() {
		c.Fatalf("%d runs have not ended, and it says %d", going, c.s.NumAllActive())
	}
	if n != c.s.NumRuns() {
		c.Fatalf("%d runs by birth, %d by id", n, c.s.NumRuns())
	}
	for _, w := range c.s.Workers() {
		if diff := cmp.Diff(on[w.ID], ids(c.s.RunsOn(w.ID))); diff != "" || c.s.Load(w.ID) != len(on[w.ID]) {
			c.Fatalf("runs on %s:\n%s", w.ID, diff)
		}
		delete(on, w.ID)
	}
	if len(on) > 0 {
		c.Fatalf("runs on workers that are gone: %v", on)
	}
	for uid := range uids {
		if diff := cmp.Diff(active[uid], ids(c.s.ActiveRuns(uid))); diff != "" || c.s.NumActive(uid) != len(active[uid]) {
			c.Fatalf("active runs of %d:\n%s", uid, diff)
		}
	}
	all := ids(slices.Collect(c.s.Live()))
	slices.SortFunc(all, state.RunID.Compare)
	slices.SortFunc(live, state.RunID.Compare)
	if diff := cmp.Diff(live, all); diff != "" {
		c.Fatalf("live runs:\n%s", diff)
	}
	backward := ids(slices.Collect(c.s.RunsBefore(0)))
	slices.Reverse(backward)
	if diff := cmp.Diff(ids(slices.Collect(c.s.RunsByBirth())), backward); diff != "" {
		c.Fatalf("runs by birth, forward and backward:\n%s", diff)
	}
}

func ids(runs []*state.Run) (ids []state.RunID) {
	for _, r := range runs {
		ids = append(ids, r.ID)
	}
	return ids
}

// ledger: each occurrence is in one span of one track, in order, and all that
// was decided is there.
func (c *checker) ledger() {
	for j := range c.s.Jobs() {
		now := map[state.TrackKey]*decided{}
		for _, t := range c.s.PastTracks(j.UID) {
			c.track(now, state.TrackKey{UID: j.UID, Trigger: t.Trigger.ID}, t)
		}
		for i := range j.Definition.Triggers {
			id := j.Definition.Triggers[i].ID
			t := c.s.Track(j.UID, id)
			if t == nil || !t.Ended.IsZero() || t.Trigger != j.Definition.Trigger(id) {
				c.Fatalf("trigger %q of %v has the track %+v", id, j.Key, t)
			}
			c.track(now, state.TrackKey{UID: j.UID, Trigger: id}, t)
		}
		for k, d := range now {
			if want := c.decided[k]; !c.trimmed && d.count > 0 && (want.count != d.count || want.digest != d.digest) {
				c.Fatalf("%v: the ledger has %d occurrences, %d were decided", k, d.count, want.count)
			}
		}
	}
}

func (c *checker) track(now map[state.TrackKey]*decided, k state.TrackKey, t *state.Track) {
	if now[k] == nil {
		now[k] = &decided{}
	}
	d := now[k]
	if t.Since.Before(d.last) {
		c.Fatalf("track of %v begins at %v, within the one before that ends at %v", k, t.Since, d.last)
	}
	last := t.Since
	for _, s := range t.Spans() {
		if !s.First.After(last) || s.Last.Before(s.First) || s.Last.After(t.DecidedUntil) || s.Count < 1 || s.Count > state.MaxSpan {
			c.Fatalf("track of %v since %v until %v has the span %+v after %v", k, t.Since, t.DecidedUntil, s, last)
		}
		last = s.Last
		d.count += s.Count
		d.digest += s.Digest
	}
	d.last = t.DecidedUntil
}

// remember notes how all looks that was handed out.
func (c *checker) remember() {
	note := func(v any) {
		if _, ok := c.versions[v]; !ok {
			c.versions[v] = c.look(v)
		}
	}
	for j := range c.s.Jobs() {
		note(j)
		for _, t := range c.s.PastTracks(j.UID) {
			note(t)
		}
		for i := range j.Definition.Triggers {
			note(c.s.Track(j.UID, j.Definition.Triggers[i].ID))
		}
	}
	for r := range c.s.RunsByBirth() {
		note(r)
	}
	for _, w := range c.s.Workers() {
		note(w)
	}
}

func (c *checker) look(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		c.Fatal(err)
	}
	return string(b)
}

// oldVersions: whoever was handed one may keep it.
func (c *checker) oldVersions() {
	for v, was := range c.versions {
		if is := c.look(v); is != was {
			c.Fatalf("a %T that was handed out has changed:\n was %s\n is  %s", v, was, is)
		}
	}
}

// The same log builds the same state; a rejected command leaves no trace.
func TestReplay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, again := state.New(), state.New()
		w := raftstoretest.NewWalk(t, s)
		for i := range rapid.Uint64Range(1, 40).Draw(t, "entries") {
			e := w.Entry()
			s.Apply(i+1, e)
			again.Apply(i+1, e)
		}
		a, b := s.Snapshot(), again.Snapshot()
		a.Sort()
		b.Sort()
		if diff := cmp.Diff(a, b); diff != "" {
			t.Fatalf("replayed otherwise:\n%s", diff)
		}
	})
}
