package remote

import (
	"sync"
	"time"

	"github.com/schedd/schedd/agent/gather"
	"github.com/schedd/schedd/agent/runner"
)

// end is how an attempt ended.
type end struct {
	*kept
	how runner.Exit
}

// unsaid are ends that are neither on record nor told yet.
type unsaid struct {
	saying sync.Mutex // held by who writes them down

	// Guarded by keeper.mu.
	ends   []end
	rhythm gather.Rhythm
	late   *time.Timer // ends the waiting for company; nil while nobody does
}

// ended takes note of how an attempt ended: it is written down first, and then told. While
// many end in quick succession it waits a little for others, since one record or ten, and
// one message or ten, cost nearly the same.
func (k *keeper) ended(a *kept, how runner.Exit) {
	if k.endedSoon(end{a, how}) {
		k.say()
	}
}

// endedSoon reports whether what is unsaid has waited long enough.
func (k *keeper) endedSoon(e end) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e.stopped && e.how.Killed {
		e.how.Killed, e.how.Interrupted = false, true
		e.how.Reason = "the worker was stopped while it ran"
	}
	u := &k.unsaid
	u.ends = append(u.ends, e)
	if !u.rhythm.Busy(time.Now()) || len(u.ends) >= gather.Enough {
		return true
	}
	if u.late == nil {
		u.late = time.AfterFunc(gather.Longest, k.say)
	}
	return false
}

// say writes down what is unsaid, and has it told. When it returns that is done with all
// that was unsaid before.
func (k *keeper) say() {
	k.unsaid.saying.Lock()
	defer k.unsaid.saying.Unlock()
	ends := k.takeUnsaid()
	if len(ends) == 0 {
		return
	}
	written := k.book.noteExits(ends...)
	for _, e := range ends {
		if e.how.LeaseExpired {
			k.log.Warn("ended an attempt whose lease was not renewed in time", "attempt", e.id, "pid", e.pid)
		}
		k.log.Debug("ended", "attempt", e.id, "pid", e.pid, "exit_code", e.how.Code, "reason", e.how.Reason)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	ids := make([]string, 0, len(ends))
	for _, e := range ends {
		e.exit, e.written = &e.how, written
		ids = append(ids, e.id)
	}
	k.running -= len(ends)
	if k.watcher != nil {
		k.watcher.noteLocked(ids...)
	}
	wake(k.changed)
}

func (k *keeper) takeUnsaid() []end {
	k.mu.Lock()
	defer k.mu.Unlock()
	u := &k.unsaid
	if u.late != nil {
		u.late.Stop()
		u.late = nil
	}
	ends := u.ends
	u.ends = nil
	return ends
}
