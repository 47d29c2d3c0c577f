// Package fakerunner is a runner without processes, for tests of what is above
// it. Its attempts take time but no processor: in a testing/synctest bubble,
// where a real child would make the clock stand still, they take virtual time.
// Their output is real: it is appended to the file that the Spec names.
//
// It starts no process, reads no clock but package time's, and looks at nothing
// of the worker it is on.
package fakerunner

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/schedd/schedd/agent/runner"
)

// Behaviour is what an attempt's process does when it is left alone.
type Behaviour struct {
	// StartError makes Start fail with it, and nothing else happens.
	StartError error
	// Duration is how long it runs; negative is until it is killed.
	Duration time.Duration
	// Output is written in this order, each chunk After the one before. What
	// would come after the end is not written.
	Output []Chunk
	// ExitCode is how it ends, unless it is ended.
	ExitCode int
	// IgnoreTerm makes it live on until SIGKILL.
	IgnoreTerm bool
	// CPUTime, MaxRSS and Leftover are handed through to Exit.
	CPUTime  time.Duration
	MaxRSS   int64
	Leftover int
}

// Chunk is a piece of output.
type Chunk struct {
	After time.Duration
	Data  []byte
}

// Fake is a Runner whose attempts do as they are told. It may outlive the agent
// that uses it, as processes do: hand the same Fake to the agent's next life. It
// may be used by many goroutines.
type Fake struct {
	script func(runner.Spec) Behaviour
	wg     sync.WaitGroup // every attempt that runs

	mu      sync.Mutex // guards all below
	nextPID int
	specs   []runner.Spec // every Start, also those that failed
	lives   []*process    // all that have ever run
	running map[string]*process
	ended   map[string]*process // and not forgotten
	swept   map[string][]string // the marks that EndStrays was called with, by ID

	stopping chan struct{}
	booted   time.Time     // guarded by mu, like all below
	slept    time.Duration // since then
	awake    chan struct{} // closed when the host goes on; nil: it does
	unable   error         // why nothing can be started
	trouble  string
	troubled chan struct{} // closed, and replaced, when trouble changes
	keeps    runner.Enforcement
	changed  chan struct{} // closed, and replaced, when keeps changes
}

var _ runner.Lasting = (*Fake)(nil)

// New returns a Fake whose attempts behave as script says. The script is called
// once for each Start, on the caller's goroutine, unless nothing can be started.
func New(script func(runner.Spec) Behaviour) *Fake {
	return &Fake{
		script: script, nextPID: 1000, running: map[string]*process{}, ended: map[string]*process{}, swept: map[string][]string{},
		stopping: make(chan struct{}), booted: boot, troubled: make(chan struct{}), changed: make(chan struct{}), keeps: runner.Enforcement{
			Memory: runner.MeansCgroupV2, CPU: runner.MeansCgroupV2, PIDs: runner.MeansCgroupV2,
			Usage: runner.MeansCgroupV2, Tree: runner.MeansCgroupV2,
		},
	}
}

// SetEnforcement says what attempts can be held to; it is everything at first.
func (f *Fake) SetEnforcement(e runner.Enforcement) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keeps = e
	close(f.changed)
	f.changed = make(chan struct{})
}

// Enforcement implements runner.Runner.
func (f *Fake) Enforcement() (is runner.Enforcement, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.keeps, f.changed
}

// SetUnable says why nothing can be started on this host; nil: it can.
func (f *Fake) SetUnable(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unable = err
}

// Probe implements runner.Runner.
func (f *Fake) Probe() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.unable
}

// Start starts an attempt as the real one would: it fails for an ID that runs,
// and for an Output that isn't there.
func (f *Fake) Start(s runner.Spec) (runner.Process, error) {
	f.mu.Lock()
	f.specs = append(f.specs, s)
	keeps, unable := f.keeps, f.unable
	f.mu.Unlock()
	if unable != nil {
		return nil, runner.Unable(fmt.Errorf("starting attempt %q: %w", s.ID, unable))
	}
	switch now, _ := f.Uptime(); {
	case s.Deadline > 0 && now >= s.Deadline:
		return nil, fmt.Errorf("starting attempt %q: %w", s.ID, runner.ErrLate)
	case s.LeaseEnd > 0 && now >= s.LeaseEnd:
		return nil, fmt.Errorf("starting attempt %q: its lease had ended", s.ID)
	}
	if err := keeps.Check(s.Limits); err != nil {
		return nil, fmt.Errorf("starting attempt %q: %w", s.ID, err)
	}
	b := f.script(s)
	if b.StartError != nil {
		return nil, b.StartError
	}
	out, err := open(s.Output)
	if err != nil {
		return nil, fmt.Errorf("opening %q for the output: %w", s.Output, err)
	}
	p := &process{
		spec: s, does: b, out: out, started: time.Now(), leaseEnd: s.LeaseEnd, uptime: f.uptime,
		poke: make(chan struct{}, 1), woken: make(chan struct{}, 1), halts: make(chan (<-chan struct{}), 1), done: make(chan struct{}),
	}
	if err := f.admit(p); err != nil {
		_ = out.Close() // nothing was written
		return nil, fmt.Errorf("starting attempt %q: %w", s.ID, err)
	}
	f.wg.Go(func() {
		p.exit = p.live()
		f.leave(p)
		close(p.done)
	})
	return p, nil
}

func open(path string) (*os.File, error) {
	if path == "" {
		path = os.DevNull
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
}

func (f *Fake) admit(p *process) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running[p.spec.ID] != nil {
		return runner.ErrRunning
	}
	f.nextPID++
	f.lives = append(f.lives, p)
	p.pid = f.nextPID
	f.running[p.spec.ID] = p
	if f.awake != nil {
		p.halt(f.awake)
	}
	return nil
}

func (f *Fake) leave(p *process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.running, p.spec.ID)
	f.ended[p.spec.ID] = p
}

// Known returns what runs, and what has ended and is not forgotten.
func (f *Fake) Known() map[string]runner.Process {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := map[string]runner.Process{}
	for id, p := range f.ended {
		known[id] = p
	}
	for id, p := range f.running {
		known[id] = p
	}
	return known
}

// Forget forgets how an attempt ended.
func (f *Fake) Forget(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.ended, id)
}

// Ended returns the IDs that have ended and are not forgotten, sorted.
func (f *Fake) Ended() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.ended))
}

// Stopping is closed by Stop.
func (f *Fake) Stopping() <-chan struct{} { return f.stopping }

// Stop ends what runs, as whoever stops the real runner does.
func (f *Fake) Stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.stopping)
	for _, p := range f.running {
		p.stop()
	}
}

// Die is the end of the runner by SIGKILL: what ran ends, and nobody knows how.
func (f *Fake) Die() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.running {
		p.orphan()
	}
}

// PowerOff is the end of the host by a loss of power, and its next boot: nothing runs, and
// its runner knows of nothing that ran.
func (f *Fake) PowerOff() {
	f.Die()
	f.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.ended)
	f.booted, f.slept = time.Now(), 0
	f.goOnLocked()
}

// Starts returns how often Start was called for an ID, also when it failed.
func (f *Fake) Starts(id string) int {
	n := 0
	for _, s := range f.Specs() {
		if s.ID == id {
			n++
		}
	}
	return n
}

// Specs returns what Start was called with, in that order.
func (f *Fake) Specs() []runner.Spec {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.specs)
}

// Running returns the IDs that run, sorted.
func (f *Fake) Running() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.running))
}

// EndStrays kills what runs under the ID and returns 1 if there was any. The real
// one fails when it runs the ID itself; the Fake can't tell whose life it is. What bears
// other marks than env it does not see.
func (f *Fake) EndStrays(id string, env []string) (int, error) {
	marks := runner.Marks(env)
	if marks == nil {
		return 0, fmt.Errorf("ending strays of attempt %q: no marks", id)
	}
	f.mu.Lock()
	f.swept[id] = marks
	p := f.running[id]
	f.mu.Unlock()
	if p == nil || !slices.Equal(marks, runner.Marks(p.spec.Env)) {
		return 0, nil
	}
	p.Kill(0)
	<-p.done
	return 1, nil
}

// End kills what runs under an ID, as a person does who logs in there.
func (f *Fake) End(id string) {
	f.mu.Lock()
	p := f.running[id]
	f.mu.Unlock()
	if p != nil {
		p.Kill(0)
		<-p.done
	}
}

// Swept returns by which marks EndStrays has looked for an ID; nil when it has not.
func (f *Fake) Swept(id string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.swept[id]
}

// boot is when hosts were booted first: long before whatever a test tells of.
var boot = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)

// Uptime is the time since the host was booted, and awake or suspended.
func (f *Fake) Uptime() (time.Duration, bool) { return f.uptime(), true }

func (f *Fake) uptime() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Since(f.booted) + f.slept
}

// Ail has the runner be in trouble, or in none.
func (f *Fake) Ail(why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trouble = why
	close(f.troubled)
	f.troubled = make(chan struct{})
}

// Trouble is what Ail said last.
func (f *Fake) Trouble() (why string, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trouble, f.troubled
}

// Suspend has the host have slept for so long: what counts that is so much later, and no
// timer has moved.
func (f *Fake) Suspend(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slept += d
	for _, p := range f.running {
		select {
		case p.woken <- struct{}{}:
		default: // it has yet to look at the clock
		}
	}
}

// Halt has all that runs stand still until GoOn: the host is suspended. What is asked of
// the runner meanwhile it does, as no bubble can halt whoever asks.
func (f *Fake) Halt() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.awake != nil {
		return
	}
	f.awake = make(chan struct{})
	for _, p := range f.running {
		p.halt(f.awake)
	}
}

// GoOn has what stands still go on.
func (f *Fake) GoOn() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.goOnLocked()
}

func (f *Fake) goOnLocked() {
	if f.awake != nil {
		close(f.awake)
		f.awake = nil
	}
}

// Renew moves the ends of leases.
func (f *Fake) Renew(ends map[string]time.Duration) {
	now := f.uptime()
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, end := range ends {
		if p := f.running[id]; p != nil {
			p.renew(end, now)
		}
	}
}

// Life is the life of a process, as the host saw it.
type Life struct {
	Spec     runner.Spec
	From, To time.Time // To is zero while it runs
	Wrote    int64     // bytes of its output, so far
	Still    []Span    // when it stood still with its host; the last To is zero while it does
}

// Span is a part of a life.
type Span struct{ From, To time.Time }

// Lives returns the lives of all processes that there were, in the order of their
// starts: what is true, whatever anybody was told of them.
func (f *Fake) Lives() []Life {
	f.mu.Lock()
	defer f.mu.Unlock()
	lives := make([]Life, len(f.lives))
	for i, p := range f.lives {
		lives[i] = Life{p.spec, p.started, p.Exit().Finished, p.wrote.Load(), p.stoodStill()}
	}
	return lives
}

// Wait returns when nothing runs.
func (f *Fake) Wait() { f.wg.Wait() }

// Close kills all that runs and waits for it: a bubble must be left empty.
func (f *Fake) Close() {
	f.mu.Lock()
	for _, p := range f.running {
		p.Kill(0)
	}
	f.mu.Unlock()
	f.wg.Wait()
}
