package remote

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/schedd/schedd/agent/crew"
	"github.com/schedd/schedd/agent/runner"
)

var (
	errStopping = errors.New("the worker is being stopped")
	errNotAgent = errors.New("another life of the agent uses this runner")
	errNotLink  = errors.New("the agent has another link to this runner, and asks again over that one")
)

// keeper owns the attempts of a runner, over any number of agents: it has them
// started, keeps how they ended, and tells whoever watches.
type keeper struct {
	log    *slog.Logger
	runner runner.Runner
	book   *book
	most   int // attempts that are kept; 0: any number

	over    chan struct{}  // closed: all calls have to end, and nothing is tried again
	crew    *crew.Crew     // follows attempts
	wg      sync.WaitGroup // one for each attempt that is followed, and for what is noted
	changed chan struct{}  // holds one: look again whether all is quiet

	mu       sync.Mutex // guards all below, and every kept as said there
	attempts map[string]*kept
	running  int // of them, those that are being started too
	tenure   *tenure
	watcher  *watcher // nil without an agent
	stopping bool
}

// kept is one attempt, from the wish to start it until it is forgotten.
type kept struct {
	id    string
	grace time.Duration
	ready chan struct{} // closed when it runs or could not be started
	err   error         // why not; written before ready is closed

	// Written before ready is closed.
	pid     int
	started time.Time
	proc    runner.Process // nil for one of a former runner

	noted bool          // its start is on record; for the goroutine that follows it
	gone  chan struct{} // closed when it is forgotten

	// Guarded by keeper.mu.
	stopped bool         // ended for the runner's sake
	exit    *runner.Exit // nil while it runs
	written bool         // exit is on record
}

// tenure is the time of one life of the agent.
type tenure struct {
	life   uint64
	starts sync.WaitGroup // that are under way
}

func newKeeper(log *slog.Logger, r runner.Runner, b *book) *keeper {
	return &keeper{
		log: log, runner: r, book: b, over: make(chan struct{}), crew: crew.New(crewSize), changed: make(chan struct{}, 1),
		attempts: make(map[string]*kept), tenure: &tenure{},
	}
}

// resume takes up what a former runner has left: how attempts ended, and those of
// which nobody will know how they do.
func (k *keeper) resume(ended map[string]runner.Exit, lost []lost) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, exit := range ended {
		a := &kept{id: id, ready: closed(), gone: make(chan struct{}), started: exit.Started, exit: &exit, written: true}
		k.attempts[id] = a
	}
	for _, l := range lost {
		k.attempts[l.id] = &kept{id: l.id, ready: closed(), gone: make(chan struct{}), started: l.started, pid: l.pid, noted: true}
		k.running++
	}
	if len(lost) > 0 {
		k.wg.Go(func() {
			for _, l := range lost {
				k.settle(l)
			}
			k.book.sync()
		})
	}
}

// settle ends what is left of an attempt whose runner is gone.
func (k *keeper) settle(l lost) {
	reason := l.reason
	if l.strays {
		n, err := k.runner.EndStrays(l.id, l.marks)
		if n > 0 {
			k.log.Warn("ended processes that a former runner left", "attempt", l.id, "processes", n)
		}
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			k.log.Error("processes that a former runner left may still run", "attempt", l.id, "err", err)
			reason += "; processes that it left may still run: " + err.Error()
		}
	}
	k.ended(k.at(l.id), runner.Exit{Interrupted: true, Reason: reason, Started: l.started, Finished: time.Now()})
}

// asker is who asks for a start.
type asker struct {
	life uint64 // of the agent
	link uint64 // over which it asks; 0 for an agent of before revision 3, which does not say
}

// take makes a life of the agent the one that counts, and returns when no start
// of a former one is under way.
func (k *keeper) take(life, link uint64) (*watcher, error) {
	k.mu.Lock()
	former := k.tenure
	if life < former.life {
		k.mu.Unlock()
		return nil, errNotAgent
	}
	if life > former.life {
		k.tenure = &tenure{life: life}
	}
	w := newWatcher(link)
	if k.watcher != nil {
		close(k.watcher.replaced)
	}
	k.watcher = w
	wake(k.changed)
	k.mu.Unlock()
	if life > former.life {
		former.starts.Wait()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range k.attempts {
		w.noteLocked(id)
	}
	return w, nil
}

// leave takes note that an agent has gone.
func (k *keeper) leave(w *watcher) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.watcher == w {
		k.watcher = nil
	}
	wake(k.changed)
}

// start starts an attempt for a life of the agent, or returns the one that is
// kept under its ID.
func (k *keeper) start(by asker, s runner.Spec) (*kept, error) {
	a, again, done, err := k.admit(by, s)
	if err != nil {
		return nil, err
	}
	defer done()
	if again {
		<-a.ready
		return a, a.err
	}
	a.proc, a.err = k.runner.Start(s)
	if a.err != nil {
		k.drop(a)
		close(a.ready)
		return a, a.err
	}
	a.pid, a.started = a.proc.PID(), a.proc.Started()
	close(a.ready)
	k.log.Debug("started", "attempt", a.id, "pid", a.pid)
	k.endIfStopping(a)
	k.wg.Add(1)
	k.crew.Go(func() { defer k.wg.Done(); k.follow(a, s) })
	return a, nil
}

// admit makes room for an attempt, or finds it. The caller calls done when it has
// been started, or not.
func (k *keeper) admit(by asker, s runner.Spec) (a *kept, again bool, done func(), err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if by.life != k.tenure.life {
		return nil, false, nil, errNotAgent
	}
	if by.link != 0 && (k.watcher == nil || k.watcher.link != by.link) {
		return nil, false, nil, errNotLink
	}
	a = k.attempts[s.ID]
	if a == nil && k.stopping {
		return nil, false, nil, errStopping
	}
	t := k.tenure
	t.starts.Add(1)
	if a != nil {
		return a, true, t.starts.Done, nil
	}
	if err := k.crowdedLocked(); err != nil {
		t.starts.Done()
		return nil, false, nil, runner.Unable(err)
	}
	a = &kept{id: s.ID, grace: s.KillGrace, ready: make(chan struct{}), gone: make(chan struct{})}
	k.attempts[s.ID] = a
	k.running++
	return a, false, t.starts.Done, nil
}

// crowdedLocked returns why no more attempts are kept.
func (k *keeper) crowdedLocked() error {
	if n := len(k.attempts); k.most > 0 && n >= k.most {
		return fmt.Errorf("%d attempts run here or were not forgotten by the agent, and the runner of an agent of another user keeps no more", n)
	}
	return nil
}

// probe returns why nothing can be started.
func (k *keeper) probe() error {
	k.mu.Lock()
	err := k.crowdedLocked()
	k.mu.Unlock()
	if err != nil {
		return err
	}
	return k.runner.Probe()
}

// drop takes an attempt off the list that could not be started.
func (k *keeper) drop(a *kept) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.attempts, a.id)
	k.running--
	wake(k.changed)
}

// follow sees an attempt through to its end. Its start is put on record a moment
// later, if it has not ended by then: should this runner die before, the agent still
// knows of it. Its end is synced to disk a moment later, if it is not forgotten by then.
// What the disk does not take is tried again.
func (k *keeper) follow(a *kept, s runner.Spec) {
	late := time.NewTimer(noteAfter)
	defer late.Stop()
	for running := true; running; {
		select {
		case <-a.proc.Done():
			running = false
		case <-late.C:
			if k.book.noteStart(a, s.Env); !a.noted {
				late.Reset(noteAgain)
			}
		}
	}
	exit := k.ended(a, a.proc.Exit())
	for late.Reset(noteAfter); !k.lasts(a, exit, late.C); late.Reset(noteAgain) {
	}
}

// lasts waits for a moment, and then sees that how an attempt ended is on the disk. It
// reports whether that is done, or nobody needs it.
func (k *keeper) lasts(a *kept, exit runner.Exit, moment <-chan time.Time) bool {
	over := false
	select {
	case <-a.gone:
		return true
	case <-k.over:
		over = true
	case <-moment:
	}
	k.mu.Lock()
	written := a.written
	k.mu.Unlock()
	if !written {
		written = k.book.noteExit(a, exit)
		k.mu.Lock()
		a.written = written
		k.mu.Unlock()
	}
	if written {
		k.book.sync()
	}
	return written || over
}

// ended takes note of how an attempt ended, and returns it: it is written down first.
func (k *keeper) ended(a *kept, exit runner.Exit) runner.Exit {
	k.mu.Lock()
	if a.stopped && exit.Killed {
		exit.Killed, exit.Interrupted = false, true
		exit.Reason = "the worker was stopped while it ran"
	}
	k.mu.Unlock()
	written := k.book.noteExit(a, exit)
	if exit.LeaseExpired {
		k.log.Warn("ended an attempt whose lease was not renewed in time", "attempt", a.id, "pid", a.pid)
	}
	k.log.Debug("ended", "attempt", a.id, "pid", a.pid, "exit_code", exit.Code, "reason", exit.Reason)
	k.mu.Lock()
	defer k.mu.Unlock()
	a.exit, a.written = &exit, written
	k.running--
	if k.watcher != nil {
		k.watcher.noteLocked(a.id)
	}
	wake(k.changed)
	return exit
}

// kill ends an attempt if it runs.
func (k *keeper) kill(id string, grace time.Duration) {
	a := k.at(id)
	if a == nil {
		return
	}
	<-a.ready
	if a.proc != nil {
		k.log.Info("killing", "attempt", id, "grace", grace)
		a.proc.Kill(grace)
	}
}

// forget drops attempts that have ended.
func (k *keeper) forget(ids []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var gone []string
	for _, id := range ids {
		if a := k.attempts[id]; a != nil && a.exit != nil {
			delete(k.attempts, id)
			close(a.gone)
			if a.written {
				gone = append(gone, id)
			}
		}
	}
	if len(gone) > 0 {
		// Nobody waits for that: one that is kept after all is forgotten again.
		k.wg.Go(func() { k.book.noteForgotten(gone) })
	}
}

func (k *keeper) at(id string) *kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.attempts[id]
}

// stop starts nothing any more and ends all that runs, each with its grace. It
// returns how many there were, and the longest of their graces. With ifIdle it
// does so only when nothing is kept at all.
func (k *keeper) stop(ifIdle bool) (running int, grace time.Duration, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ifIdle && len(k.attempts) > 0 {
		return 0, 0, false
	}
	k.stopping = true
	for _, a := range k.attempts {
		if a.exit != nil {
			continue
		}
		running++
		grace = max(grace, a.grace)
		select {
		case <-a.ready:
			a.endLocked()
		default: // whoever starts it sees that we stop
		}
	}
	if k.watcher != nil {
		wake(k.watcher.wake)
	}
	return running, grace, true
}

// endIfStopping is for an attempt that was being started while the runner was
// stopped.
func (k *keeper) endIfStopping(a *kept) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.stopping {
		return
	}
	if isClosed(k.over) { // nobody will be there when its grace is over
		a.grace = 0
	}
	a.endLocked()
}

// endLocked ends an attempt for the runner's sake.
func (a *kept) endLocked() {
	if a.proc != nil && !a.stopped {
		a.stopped = true
		a.proc.Kill(a.grace)
	}
}

// quiet reports whether nothing runs, and whether there is no agent either.
func (k *keeper) quiet() (still, alone bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.running == 0, k.running == 0 && k.watcher == nil
}

// rest returns when nothing is followed or noted any more, and nothing may be from then on.
func (k *keeper) rest() {
	k.wg.Wait()
	k.crew.Rest()
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// wake leaves word in a channel that holds one, unless there is some already.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
