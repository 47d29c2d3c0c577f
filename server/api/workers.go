package api

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
)

// maxSlots bounds the slots that may be given to a worker.
const maxSlots = 10000

// workerNow is a worker and how many attempts it has.
type workerNow struct {
	*state.Worker
	load int
}

// showWorker returns a worker as the API has it. Whether it is connected is not
// in the state: the leader hears it from who holds its session.
func (s *Server) showWorker(w workerNow) *schedv1.Worker {
	p := &schedv1.Worker{
		Id: string(w.ID), Name: w.Says.Name,
		Labels: w.Labels(), Slots: uint32(w.Slots()), Running: uint32(w.load),
		Advertise: &schedv1.Advertise{Hostname: w.Says.AdvertiseHostname, Ip: w.Says.AdvertiseIP},
		Version:   w.Says.Version, Os: w.Says.OS, Arch: w.Says.Arch,
		Mode:          schedv1.Worker_REVERSE,
		FirstSeenTime: showTime(w.First),
		Phase:         schedv1.WorkerPhase_WORKER_PHASE_OFFLINE,
		// A worker is given up as offline soon after it was last heard of.
		LastSeenTime: showTime(w.Offline),
	}
	if w.Enforcement != (state.Enforcement{}) {
		p.Enforcement = showEnforcement(w.Enforcement)
	}
	if w.Drain != nil {
		p.Draining = &schedv1.Draining{Note: w.Drain.Note, Since: showTime(w.Drain.Since)}
	}
	session, seen, ok := s.Presence.Session(p.GetId())
	if !ok {
		return p
	}
	p.Phase = schedv1.WorkerPhase_WORKER_PHASE_ONLINE
	if w.Drain != nil {
		p.Phase = schedv1.WorkerPhase_WORKER_PHASE_DRAINING
	}
	if session.Direct {
		p.Mode = schedv1.Worker_DIRECT
	}
	p.Gateway, p.ObservedAddress, p.SessionEpoch = session.Gateway, session.ObservedAddress, session.Epoch
	p.Trouble = s.Presence.Trouble(p.GetId())
	p.ConnectedTime, p.LastSeenTime = showTime(session.Connected), showTime(seen)
	return p
}

func showEnforcement(e state.Enforcement) *schedv1.Enforcement {
	return &schedv1.Enforcement{
		Memory: allMeans.show(e.Memory), Cpu: allMeans.show(e.CPU), Pids: allMeans.show(e.PIDs),
		Usage: allMeans.show(e.Usage), Tree: allMeans.show(e.Tree), Note: e.Note,
	}
}

// showWorkerNow returns a worker as it is now; as it was, when it is gone.
func (s *Server) showWorkerNow(w *state.Worker) *schedv1.Worker {
	n := workerNow{Worker: w}
	s.Store.View(func(st *state.State) {
		if newer := st.Worker(w.ID); newer != nil {
			n.Worker = newer
		}
		n.load = st.Load(w.ID)
	})
	return s.showWorker(n)
}

func (s workerService) GetWorker(_ context.Context, req *schedv1.GetWorkerRequest) (*schedv1.GetWorkerResponse, error) {
	c := request()
	id := c.in("id").workerID(req.GetId())
	if err := c.err(); err != nil {
		return nil, err
	}
	var w *state.Worker
	s.Store.View(func(st *state.State) { w = st.Worker(id) })
	if w == nil {
		return nil, noWorker(id)
	}
	return &schedv1.GetWorkerResponse{Worker: s.showWorkerNow(w)}, nil
}

func noWorker(id state.WorkerID) error {
	return fmt.Errorf("worker %s: %w", quote(string(id)), state.ErrNotFound)
}

func (s workerService) UpdateWorker(ctx context.Context, req *schedv1.UpdateWorkerRequest) (*schedv1.UpdateWorkerResponse, error) {
	c := request()
	u := state.UpdateWorker{
		ID:           c.in("id").workerID(req.GetId()),
		SetLabels:    c.in("set_labels").labels(req.GetSetLabels()),
		RemoveLabels: req.GetRemoveLabels(),
	}
	for i, k := range u.RemoveLabels {
		c.in("remove_labels").at(i).labelKey(k)
		if _, both := u.SetLabels[k]; both {
			c.in("remove_labels").at(i).failf("%s is in set_labels, too", quote(k))
		}
	}
	if len(u.RemoveLabels) > maxLabels {
		c.in("remove_labels").failf("has %d keys, of %d allowed", len(u.RemoveLabels), maxLabels)
	}
	if req.Slots != nil {
		if req.GetSlots() > maxSlots {
			c.in("slots").failf("is %d; allowed are 1 to %d, and 0 gives it back its own", req.GetSlots(), maxSlots)
		}
		slots := int(req.GetSlots())
		u.Slots = &slots
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	r, _, err := s.agree(ctx, func(st *state.State, _ time.Time) (change, error) {
		w := st.Worker(u.ID)
		if w == nil {
			return change{}, noWorker(u.ID)
		}
		return change{commands: []state.Command{u}}, enoughLabels(w, u)
	})
	if err != nil {
		return nil, err
	}
	return &schedv1.UpdateWorkerResponse{Worker: s.showWorkerNow(r.Worker)}, nil
}

// enoughLabels bounds the labels that are laid over a worker's own, call by call.
func enoughLabels(w *state.Worker, u state.UpdateWorker) error {
	after := map[string]bool{}
	for _, m := range []map[string]string{w.ExtraLabels, u.SetLabels} {
		for k := range m {
			after[k] = true
		}
	}
	for _, k := range u.RemoveLabels {
		delete(after, k)
	}
	c := request()
	if n := len(after); n > maxLabels {
		c.in("set_labels").failf("would make it %d labels laid over the worker's own, of %d allowed; remove some", n, maxLabels)
	}
	return c.err()
}

func (s workerService) DrainWorker(ctx context.Context, req *schedv1.DrainWorkerRequest) (*schedv1.DrainWorkerResponse, error) {
	c := request()
	d := state.DrainWorker{ID: c.in("id").workerID(req.GetId()), Undo: req.GetUndo(), Note: c.in("note").text(req.GetNote(), maxNote)}
	if err := c.err(); err != nil {
		return nil, err
	}
	r, _, err := s.agree(ctx, func(st *state.State, _ time.Time) (change, error) {
		if st.Worker(d.ID) == nil {
			return change{}, noWorker(d.ID)
		}
		return change{commands: []state.Command{d}}, nil
	})
	if err != nil {
		return nil, err
	}
	return &schedv1.DrainWorkerResponse{Worker: s.showWorkerNow(r.Worker)}, nil
}

func (s workerService) RemoveWorker(ctx context.Context, req *schedv1.RemoveWorkerRequest) (*schedv1.RemoveWorkerResponse, error) {
	c := request()
	id := c.in("id").workerID(req.GetId())
	if err := c.err(); err != nil {
		return nil, err
	}
	_, _, err := s.agree(ctx, func(st *state.State, _ time.Time) (change, error) {
		if st.Worker(id) == nil {
			return change{}, noWorker(id)
		}
		if req.GetForce() {
			return removeByForce(st, id, s.stateTime(st)), nil
		}
		if err := s.removable(st, id); err != nil {
			return change{}, err
		}
		return change{commands: []state.Command{state.RemoveWorker{ID: id}}}, nil
	})
	if err != nil {
		return nil, err
	}
	if req.GetForce() {
		s.Gateway.Cut(string(id), "the worker was removed; it is a new one when it connects again", false)
	}
	return &schedv1.RemoveWorkerResponse{}, nil
}

// removable tells why a worker can't be removed without force.
func (s *Server) removable(st *state.State, id state.WorkerID) error {
	if n := st.Load(id); n > 0 {
		return status.Errorf(codes.FailedPrecondition, "worker %s has %d active runs: drain it and wait, or remove it by force, and they are lost", id, n)
	}
	if _, _, ok := s.Presence.Session(string(id)); ok {
		return status.Errorf(codes.FailedPrecondition, "worker %s is connected: stop its schedagent first, or remove it by force", id)
	}
	return nil
}

// removeByForce gives up what a worker has and removes it. Draining it first
// keeps it from being given more, should it have to be tried again.
func removeByForce(st *state.State, id state.WorkerID, now time.Time) change {
	commands := []state.Command{state.DrainWorker{ID: id, Note: "is being removed"}}
	for _, r := range st.RunsOn(id) {
		commands = append(commands, plan.Ended(r, r.Live().Fence, state.Attempt{
			Outcome: state.OutcomeLost,
			Reason:  "its worker was removed by force; whether the process still runs is not known",
		}, now))
	}
	commands = append(commands, state.RemoveWorker{ID: id})
	return change{commands: commands, answer: len(commands) - 1}
}
