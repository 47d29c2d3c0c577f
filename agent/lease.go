package agent

import (
	"slices"
	"time"

	"github.com/schedd/schedd/proto/wire"
)

// Wanted returns the fences of the attempts that may go on only with a lease, and have
// not ended, and the time on the runner's clock. One that is not on record yet is not among
// them: should the agent crash, the leader would wait for a lease that nobody holds. It is
// called by sessions.
func (t *table) Wanted() (fences []uint64, now time.Duration) {
	now, ok := t.runner.Uptime()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.leased == 0 || !ok {
		return nil, now
	}
	for _, a := range t.attempts {
		if a.wants && a.result == nil {
			fences = append(fences, a.fence)
		}
	}
	slices.Sort(fences)
	return fences[:min(len(fences), wire.MaxLeases)], now
}

// Granted lets attempts go on for their kill_after, counted from asked. It is called by
// sessions. Whether that is in time the runner sees, by its own clock.
func (t *table) Granted(fences []uint64, asked time.Duration) {
	given := make(map[uint64]bool, len(fences))
	for _, f := range fences {
		given[f] = true
	}
	ends := map[string]time.Duration{}
	t.mu.Lock()
	for _, a := range t.attempts {
		if a.killAfter > 0 && a.result == nil && given[a.fence] {
			a.grantLocked(asked + a.killAfter)
			ends[a.id()] = a.leaseEnd
		}
	}
	t.mu.Unlock()
	if len(ends) > 0 {
		t.runner.Renew(ends)
	}
}

// grantLocked moves the end of the lease.
func (a *attempt) grantLocked(end time.Duration) {
	if a.leaseEnd == 0 {
		close(a.granted)
	}
	a.leaseEnd = max(a.leaseEnd, end)
}

// awaitLease waits until an attempt that needs a lease has one, or until there is
// something that keeps it from starting.
func (t *table) awaitLease(a *attempt) {
	if a.killAfter == 0 || !t.canLease() || t.uptime() >= a.deadline { // too late: the disk took long
		return
	}
	t.mu.Lock()
	a.wants = true
	for box := range t.boxes {
		box.AskLeases()
	}
	t.mu.Unlock()
	late := time.NewTimer(a.deadline - t.uptime())
	defer late.Stop()
	select {
	case <-a.granted:
	case <-a.poke:
		wake(a.poke) // it is for whoever looks at the kill, too
	case <-t.stopping:
	case <-late.C:
	}
}

// renew tells the runner of the lease that came while an attempt was being started.
func (t *table) renew(a *attempt) {
	if end := t.leaseOf(a); end > 0 {
		t.runner.Renew(map[string]time.Duration{a.id(): end})
	}
}

// leaseOf returns when the lease of an attempt ends, by the runner's clock; 0 when it
// needs none.
func (t *table) leaseOf(a *attempt) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return a.leaseEnd
}

// uptime returns the time on the runner's clock, which goes on while the host is suspended
// where it has such a clock.
func (t *table) uptime() time.Duration {
	now, _ := t.runner.Uptime()
	return now
}

// canLease reports whether this worker can keep leases at present.
func (t *table) canLease() bool {
	_, ok := t.runner.Uptime()
	return ok
}
