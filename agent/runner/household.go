//go:build unix

package runner

import (
	"sync"

	"github.com/schedd/schedd/agent/crew"
	"github.com/schedd/schedd/agent/runner/cgroup"
)

// home is the one household of this process: children belong to a process, not
// to whoever in it started them.
var home = newHousehold()

// crewSize is how many goroutines are kept that have seen an attempt through, or have made
// its start ready: as many as several hundred starts a second keep busy.
const crewSize = 128

// household knows whose each child of this process is.
type household struct {
	crew *crew.Crew // as long as this process
	null null

	// forking is held for reading from before a fork until the child is
	// enlisted, which takes as long as the file systems of its directory and program
	// do. Whoever must not mistake one for an orphan tries to have it for writing,
	// and waits for nobody.
	forking sync.RWMutex

	mu        sync.Mutex // guards all below
	byID      map[string]*process
	bySession map[int]*process // by pid of the main process, which is its session
	nursery
}

// reserve makes p the only attempt of its ID.
func (h *household) reserve(p *process) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byID[p.id] != nil {
		return ErrRunning
	}
	h.byID[p.id] = p
	return nil
}

// enlist makes p known by its pid. The caller holds forking.
func (h *household) enlist(p *process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bySession[p.pid] = p
}

// settleIn gives p its control group, before it has a process.
func (h *household) settleIn(p *process, g *cgroup.Group) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p.group = g
}

// forget drops p, of which nothing is left, and returns what was known of it.
func (h *household) forget(p *process) kin {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.byID, p.id)
	if h.bySession[p.pid] == p {
		delete(h.bySession, p.pid)
	}
	h.disclaimLocked(p)
	return p.kin
}

func (h *household) running(id string) bool { return h.of(id) != nil }

// of returns the attempt of that ID, nil when it does not run.
func (h *household) of(id string) *process {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.byID[id]
}

// isMainLocked reports whether pid is a main process that is not yet reaped.
func (h *household) isMainLocked(pid int) bool {
	p := h.bySession[pid]
	return p != nil && !p.kin.reaped
}

// markNames are the variables that tell of whose attempt a process is. The worker
// is one of them: two agents on one host, of two clusters even, must not end each
// other's processes.
var markNames = []string{"SCHEDD_RUN_ID", "SCHEDD_ATTEMPT", "SCHEDD_WORKER"}

// Marks returns the entries of an environment by which the processes of an attempt
// are recognised: what EndStrays needs.
func Marks(env []string) []string { return marksOf(env) }

// marksOf returns the entries of an environment that tell of whose attempt it is;
// nil when it does not say of which run and attempt.
func marksOf(env []string) (marks []string) {
	for i, name := range markNames {
		v, ok := getenv(env, name)
		switch {
		case ok:
			marks = append(marks, name+"="+v)
		case i < 2:
			return nil
		}
	}
	return marks
}
