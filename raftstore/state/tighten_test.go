package state_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/schedd/schedd/raftstore/state"
)

// past is a state in which runs are made, and end.
type past struct {
	*state.State
	index uint64
	ids   []state.RunID // the oldest first
}

// newPast returns one with a job that was defined twice.
func newPast() *past {
	p := &past{State: state.New()}
	p.apply(put(def("", 1), 0), worker("a", 1), decide(0, 3, "ssm"), put(def("", 2), 3))
	return p
}

// ask returns a request for another run.
func (p *past) ask() state.Request {
	c := request(fmt.Sprint(len(p.ids)), p.Activity(uid))
	c.Version = 2
	p.ids = append(p.ids, c.ID)
	return c
}

func (p *past) apply(commands ...state.Command) {
	p.index++
	for _, r := range p.Apply(p.index, state.Entry{Now: noon, Commands: commands}) {
		if r.Err != nil {
			panic(r.Err)
		}
	}
	p.TakeChanges()
	p.TakeEnded()
}

// run has a run be made, and end by itself. As they come from the log, the texts of each are its
// own.
func (p *past) run() {
	c := p.ask()
	p.apply(c, state.Assign{Run: c.ID, Attempt: 1, Worker: state.WorkerID(strings.Clone("a"))})
	fence := p.Run(c.ID).Live().Fence
	p.apply(state.Start{Run: c.ID, Fence: fence, Time: noon})
	p.apply(state.Finish{Run: c.ID, Fence: fence, Attempt: state.Attempt{Outcome: state.OutcomeFailed, Reason: strings.Clone("exit code 1")}, Phase: state.Failed, Reason: strings.Clone("exit code 1")})
}

// forget has all be forgotten save the latest of them.
func (p *past) forget(left int) {
	for some := range slices.Chunk(p.ids[:len(p.ids)-left], 1000) {
		p.apply(state.Prune{Runs: some})
	}
	p.ids = slices.Clone(p.ids[len(p.ids)-left:])
}

// What is left of many runs is as it was, as are jobs and tracks, and whoever was handed
// one keeps it.
func TestWhatIsLeftOfMany(t *testing.T) {
	const left = 12
	p := newPast()
	for range 8000 {
		p.run()
	}
	waits := p.ask()
	p.apply(waits)
	was := p.Snapshot()
	was.Sort()
	was.Runs = was.Runs[len(was.Runs)-left:]
	handed := copied(was)
	p.forget(left)
	is := p.Snapshot()
	is.Sort()
	if is.Runs[0] == was.Runs[0] || is.Jobs[0] == was.Jobs[0] || is.Tracks[0].Track == was.Tracks[0].Track || is.Past[0].Track == was.Past[0].Track {
		t.Error("a run, a job or a track is where it was among many")
	}
	was.Index = is.Index
	if diff := cmp.Diff(was, is); diff != "" {
		t.Errorf("it has changed:\n%s", diff)
	}
	for r := range p.RunsByBirth() {
		if p.Run(r.ID) != r {
			t.Errorf("run %v is another version by birth than by id", r.ID)
		}
	}
	if p.Run(waits.ID).Definition != p.Job(job).Definition {
		t.Error("the run that waits has another definition than its job, though it is of the same version")
	}
	before := copied(is)
	p.apply(state.Assign{Run: waits.ID, Attempt: 1, Worker: "a"}, decide(3, 4, "s", version(2), seen(p.Activity(uid))), state.PauseJob{Key: job, Effective: minute(4)})
	if diff := cmp.Diff(handed, copied(was), cmp.AllowUnexported(content{})); diff != "" {
		t.Errorf("what was handed out has changed:\n%s", diff)
	}
	if diff := cmp.Diff(before, copied(is), cmp.AllowUnexported(content{})); diff != "" {
		t.Errorf("what was handed out later has changed:\n%s", diff)
	}
	if p.Run(waits.ID).Live() == nil {
		t.Errorf("run %v waited, and can't be assigned any more", waits.ID)
	}
}

// content is what runs, jobs and tracks are, wherever they are.
type content struct {
	runs   []state.Run
	jobs   []state.Job
	tracks []state.Track
}

func copied(n *state.Snapshot) (c content) {
	for _, r := range n.Runs {
		r := *r
		r.Attempts = slices.Clone(r.Attempts)
		c.runs = append(c.runs, r)
	}
	for _, j := range n.Jobs {
		c.jobs = append(c.jobs, *j)
	}
	for _, k := range slices.Concat(n.Tracks, n.Past) {
		c.tracks = append(c.tracks, *k.Track)
	}
	return c
}

// What is left of many takes the room of few.
func TestRoomOfWhatIsLeft(t *testing.T) {
	const many, left = 40_000, 4000
	p := newPast()
	before := inUse()
	for range many {
		p.run()
	}
	p.forget(left)
	took := int64(inUse()-before) / left
	runtime.KeepAlive(p)
	if took > 900 {
		t.Errorf("%d bytes for each run that is left of %d times as many, want 600 to 700", took, many/left)
	}
}

// inUse returns how much memory can't be given back to the system.
func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}
