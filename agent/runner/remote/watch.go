package remote

import (
	"slices"
	"time"

	"github.com/schedd/schedd/agent/gather"
	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// watcher is what one call of an agent has yet to be told.
type watcher struct {
	link     uint64        // which of the calls of this life
	wake     chan struct{} // holds one: something is to be told
	replaced chan struct{} // closed: a newer call is the agent's

	// Guarded by keeper.mu.
	changed []string // attempts; one that has started and ended meanwhile twice
	ends    int      // how many of them have ended
	began   gather.Rhythm
	rhythm  gather.Rhythm
	late    *time.Timer // wakes who waits for company; nil while nobody does

	// For the call alone.
	synced, warned bool
	shared         bool // several attempts are told in one message
}

func newWatcher(link uint64) *watcher {
	return &watcher{link: link, wake: make(chan struct{}, 1), replaced: make(chan struct{})}
}

// noteStarted has it told that an attempt runs, whose start has no answer of its own.
// While there are many it waits a little: one that is over soon is told once.
func (k *keeper) noteStarted(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.watcher
	if w == nil {
		return
	}
	w.changed = append(w.changed, id)
	if w.began.Busy(time.Now()) {
		w.waitLocked()
		return
	}
	wake(w.wake)
}

// noteLocked has an attempt told. While many change in quick succession it waits a little
// for others, since one message or ten wake the agent alike.
func (w *watcher) noteLocked(id string) {
	w.changed = append(w.changed, id)
	w.ends++
	if !w.rhythm.Busy(time.Now()) || w.ends >= gather.Enough {
		wake(w.wake)
		return
	}
	w.waitLocked()
}

// waitLocked has the call woken when it has waited long enough for company.
func (w *watcher) waitLocked() {
	if w.late == nil {
		w.late = time.AfterFunc(gather.Longest, func() { wake(w.wake) })
	}
}

// news returns what is to be told now, in this order.
func (k *keeper) news(w *watcher) (news []*runnerv1.WatchResponse) {
	k.mu.Lock()
	defer k.mu.Unlock()
	news = w.pack(k.changedLocked(w))
	w.changed, w.ends = slices.Delete(w.changed, 0, len(w.changed)), 0
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

// changedLocked returns what has changed and is ready. What is being started is told
// when it is.
func (k *keeper) changedLocked(w *watcher) (all []*runnerv1.Attempt) {
	told := make(map[string]bool, len(w.changed))
	for _, id := range w.changed {
		if a := k.attempts[id]; a != nil && a.isReady() && !told[id] {
			told[id] = true
			all = append(all, a.showLocked())
		}
	}
	return all
}

// pack makes as few messages of attempts as the agent understands.
func (w *watcher) pack(all []*runnerv1.Attempt) (news []*runnerv1.WatchResponse) {
	if !w.shared {
		for _, m := range all {
			news = append(news, &runnerv1.WatchResponse{Body: &runnerv1.WatchResponse_Attempt{Attempt: m}})
		}
		return news
	}
	for part := range slices.Chunk(all, maxTold) {
		news = append(news, &runnerv1.WatchResponse{Body: &runnerv1.WatchResponse_Attempts{Attempts: &runnerv1.Attempts{Attempts: part}}})
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
