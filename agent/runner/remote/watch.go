package remote

import (
	"slices"
	"time"

	"github.com/schedd/schedd/agent/gather"
	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// watcher is what one call of an agent has yet to be told.
type watcher struct {
	wake     chan struct{} // holds one: something is to be told
	replaced chan struct{} // closed: a newer call is the agent's

	// Guarded by keeper.mu.
	changed []string // attempts
	rhythm  gather.Rhythm
	late    *time.Timer // wakes who waits for company; nil while nobody does

	// For the call alone.
	synced, warned bool
}

func newWatcher() *watcher {
	return &watcher{wake: make(chan struct{}, 1), replaced: make(chan struct{})}
}

// noteLocked has an attempt told. While many change in quick succession it waits a little
// for others, since one message or ten wake the agent alike.
func (w *watcher) noteLocked(id string) {
	w.changed = append(w.changed, id)
	switch {
	case !w.rhythm.Busy(time.Now()) || len(w.changed) >= gather.Enough:
		wake(w.wake)
	case w.late == nil:
		w.late = time.AfterFunc(gather.Longest, func() { wake(w.wake) })
	}
}

// news returns what is to be told now, in this order.
func (k *keeper) news(w *watcher) (news []*runnerv1.WatchResponse) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range w.changed {
		// What is being started is told to whoever asked for it.
		if a := k.attempts[id]; a != nil && a.isReady() {
			news = append(news, &runnerv1.WatchResponse{Body: &runnerv1.WatchResponse_Attempt{Attempt: a.showLocked()}})
		}
	}
	w.changed = slices.Delete(w.changed, 0, len(w.changed))
	if w.late != nil {
		w.late.Stop()
		w.late = nil
	}
	if k.stopping && !w.warned { // before Synced: who comes only now is to wait for the next runner
		w.warned = true
		news = append(news, &runnerv1.WatchResponse{Body: &runnerv1.WatchResponse_Stopping{Stopping: &runnerv1.Stopping{}}})
	}
	if !w.synced {
		w.synced = true
		news = append(news, &runnerv1.WatchResponse{Body: &runnerv1.WatchResponse_Synced{Synced: &runnerv1.Synced{}}})
	}
	return news
}

func (a *kept) isReady() bool {
	select {
	case <-a.ready:
		return a.err == nil
	default:
		return false
	}
}

// show returns an attempt that is ready, as it is now.
func (k *keeper) show(a *kept) *runnerv1.Attempt {
	k.mu.Lock()
	defer k.mu.Unlock()
	return a.showLocked()
}

func (a *kept) showLocked() *runnerv1.Attempt {
	m := &runnerv1.Attempt{Id: a.id, Pid: int64(a.pid), StartedTime: showTime(a.started)}
	if a.exit != nil {
		m.Exit = showExit(*a.exit)
	}
	return m
}
