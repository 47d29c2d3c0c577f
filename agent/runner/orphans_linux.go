package runner

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/schedd/schedd/agent/crew"
)

// nursery is how Linux tells what is left of an attempt. This process is a
// "child subreaper": who loses its parent becomes its child. So whatever is left
// of a tree whose main process has ended is a child of ours, or descends from
// one. Children that are no main processes are orphans, and as long as there is
// none a start costs one short read to know it.
type nursery struct {
	once sync.Once
	self int
	sid  int
	kids *os.File // children of the thread that orphans are given to; nil: read all of /proc

	// A child that is reaped while kids is being read can hide another. So who reads
	// it holds this for reading, and who reaps one that has ended, for writing.
	reaping sync.RWMutex

	sighting sync.Mutex      // one goroutine at a time looks after orphans
	orphans  map[int]*orphan // by pid; guarded by household.mu
}

// orphan is a child that we didn't start.
type orphan struct {
	ref
	owner *process // whose it is, if known
	// may are those that ran when it was found, of whom one must be the owner
	// when nothing tells which. It is ended with the last of them.
	may map[*process]bool
	// foreign are those that others in this process, or before it, started:
	// they are not ours to reap.
	foreign bool
}

func newHousehold() *household {
	h := &household{crew: crew.New(crewSize), byID: map[string]*process{}, bySession: map[int]*process{}}
	h.orphans = map[int]*orphan{}
	return h
}

// reap reaps p's main process, which has ended.
func (h *household) reap(p *process, e ending) ending {
	if e.err == nil {
		_, e.err = h.wait(p.pid, &e.status, 0, &e.usage)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	p.kin.reaped = true
	return e
}

// wait reaps a child that has ended, or that flags say not to wait for.
func (h *household) wait(pid int, st *syscall.WaitStatus, flags int, u *syscall.Rusage) (int, error) {
	h.reaping.Lock()
	defer h.reaping.Unlock()
	for {
		got, err := syscall.Wait4(pid, st, flags, u)
		if err != syscall.EINTR {
			return got, err
		}
	}
}

// children returns all orphans that are there, and some of the main processes. It is
// settled if none among them is being started at this moment.
//
// Linux gives orphans to the first living thread of the reaper. Go never ends
// that of main, so its list is enough, and settled, since apart forks in others; what
// those forked doesn't matter. Without that list all children are returned.
func (h *household) children() (pids []int, settled bool) {
	if h.kids != nil {
		h.reaping.RLock()
		pids, err := readPIDs(h.kids)
		h.reaping.RUnlock()
		if err == nil {
			return pids, true
		}
	}
	all, err := everybody()
	if err != nil {
		return nil, false // without /proc nobody can be found
	}
	for _, s := range all {
		if s.ppid == h.self {
			pids = append(pids, s.pid)
		}
	}
	return pids, false
}

func readPIDs(f *os.File) ([]int, error) {
	var room [512]byte
	b := room[:0]
	for {
		b = slices.Grow(b, 256)
		n, err := syscall.Pread(int(f.Fd()), b[len(b):cap(b)], int64(len(b)))
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		b = b[:len(b)+n]
	}
	if len(b) == 0 {
		return nil, nil
	}
	var pids []int
	for s := range strings.FieldsSeq(string(b)) {
		pid, err := strconv.Atoi(s)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// clean reports whether it is certain that nothing is left of p, whose main
// process has been reaped. It is what an ordinary attempt pays for the promise.
func (h *household) clean(p *process) bool {
	if !p.groupEmpty() {
		return false
	}
	pids, _ := h.children()
	if len(pids) == 0 {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, pid := range pids {
		if h.isMainLocked(pid) {
			continue
		}
		if o := h.orphans[pid]; o == nil || o.ofLocked(p) {
			return false
		}
	}
	return true
}

// ofLocked reports whether o is p's to end.
func (o *orphan) ofLocked(p *process) bool {
	return o.owner == p || len(o.may) == 1 && o.may[p]
}

// sight learns whose the orphans are, reaps those that have ended, and returns
// how many it reaped. Who reaps one may have missed its children, which were
// handed over between the look and the reaping. It waits for nobody: while another
// one is at it, or a start hangs, it leaves what it can't tell to the next call, for
// timeouts and leases have to be kept meanwhile.
func (h *household) sight() (reaped int) {
	if !h.sighting.TryLock() {
		return 0
	}
	defer h.sighting.Unlock()
	pids, settled := h.children()
	for _, pid := range h.strangers(pids, settled) {
		if o := h.identify(pid); o != nil {
			h.mu.Lock()
			h.orphans[pid] = o
			h.mu.Unlock()
		}
	}
	for _, o := range h.known() {
		switch {
		case o.foreign && !slices.Contains(pids, o.pid):
			h.bury(o, syscall.Rusage{})
		case o.foreign:
		default:
			var u syscall.Rusage
			got, err := h.wait(o.pid, nil, syscall.WNOHANG, &u)
			if got == o.pid || err != nil {
				h.bury(o, u)
				reaped++
			}
		}
	}
	return reaped
}

// strangers are the pids of children that are neither main processes nor known
// orphans; none if that can't be told at this moment.
func (h *household) strangers(pids []int, settled bool) []int {
	if settled || len(h.unknown(pids)) == 0 {
		return h.unknown(pids)
	}
	// What was being started while we looked is a child before it is known as a
	// main process. Only when no start is under way all of those are known. To wait
	// for that is not possible: a start may hang in a file system that is gone.
	if !h.forking.TryLock() {
		return nil
	}
	defer h.forking.Unlock()
	return h.unknown(pids)
}

func (h *household) unknown(pids []int) (un []int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, pid := range pids {
		if !h.isMainLocked(pid) && h.orphans[pid] == nil {
			un = append(un, pid)
		}
	}
	return un
}

func (h *household) known() []*orphan {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*orphan, 0, len(h.orphans))
	for _, o := range h.orphans {
		all = append(all, o)
	}
	return all
}

// identify finds out whose a new orphan is, in the order of certainty: in an
// attempt's control group, seen in a tree before, in the session of a main process,
// marked in its environment. It
// returns nil when that can't be told yet, or no more.
func (h *household) identify(pid int) *orphan {
	s, err := readStat(pid)
	if err != nil || s.ppid != h.self {
		return nil
	}
	o := &orphan{ref: s.ref}
	if s.session == h.sid {
		o.foreign = true // ours begin in sessions of their own and can't come back
		return o
	}
	running := h.ownerOf(o, s.session, groupOf(pid))
	if o.owner != nil {
		return o
	}
	env := environ(pid)
	if len(env) == 0 {
		if s, err = readStat(pid); err != nil || s.inExec() {
			return nil
		}
		env = environ(pid)
	}
	for _, p := range running {
		if env.bears(p.marks) {
			o.owner = p
			return o
		}
	}
	if h.self == 1 || env.marked() {
		return o // of another's attempt, or anybody's: process 1 is given all orphans
	}
	o.may = map[*process]bool{}
	for _, p := range running {
		o.may[p] = true
	}
	return o
}

// ownerOf sets o's owner if it is known from before, or by the control group that o
// is in, and returns all attempts.
func (h *household) ownerOf(o *orphan, session int, group string) (running []*process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o.owner = h.bySession[session]
	var in *process
	for _, p := range h.byID {
		if _, seen := p.kin.tree[o.ref]; seen {
			o.owner = p
		}
		if p.isInLocked(group) {
			in = p
		}
		running = append(running, p)
	}
	if in != nil {
		o.owner = in
	}
	return running
}

// bury takes a reaped orphan off the list and puts its usage on its owner's bill.
func (h *household) bury(o *orphan, u syscall.Rusage) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.orphans, o.pid)
	p := o.owner
	for one := range o.may {
		if len(o.may) == 1 {
			p = one
		}
	}
	if p != nil {
		p.kin.cpu += cpuTime(u)
		p.kin.rss = max(p.kin.rss, maxRSS(u))
	}
}

// tree returns what is there of p's tree; the main process until it is reaped.
// Nothing may be left only when it is empty and clean agrees.
func (h *household) tree(p *process) []ref {
	for h.sight() > 0 {
	}
	roots := map[int]bool{}
	for _, pid := range p.groupPIDs() {
		roots[pid] = true
	}
	h.mu.Lock()
	if !p.kin.reaped {
		roots[p.pid] = true
	}
	for _, o := range h.orphans {
		if o.ofLocked(p) {
			roots[o.pid] = true
		}
	}
	h.mu.Unlock()
	if len(roots) == 0 {
		return nil
	}
	all, err := everybody()
	if err != nil { // out of file descriptors: look again later
		return []ref{{pid: p.pid}}
	}
	refs := descendants(all, roots, h.self)
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.kin.tree == nil {
		p.kin.tree = map[ref]struct{}{}
	}
	for _, r := range refs {
		p.kin.tree[r] = struct{}{}
	}
	return refs
}

// disclaimLocked removes p from the possible owners of orphans.
func (h *household) disclaimLocked(p *process) {
	for _, o := range h.orphans {
		delete(o.may, p)
		if o.owner == p {
			o.owner = nil // one that we had no permission to end
		}
	}
}
