package api

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"reflect"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
)

func (s jobService) PutJob(ctx context.Context, req *schedv1.PutJobRequest) (*schedv1.PutJobResponse, error) {
	c := request()
	d := readJob(c.in("job"), req.GetJob())
	if err := c.err(); err != nil {
		return nil, err
	}
	r, _, err := s.agree(ctx, func(st *state.State, now time.Time) (change, error) {
		return s.preparePut(st, d, req, now)
	})
	if err != nil {
		return nil, err
	}
	return &schedv1.PutJobResponse{Job: s.showJob(r.Job, s.wallClock())}, nil
}

func (s *Server) preparePut(st *state.State, d draft, req *schedv1.PutJobRequest, now time.Time) (change, error) {
	old := st.Job(d.key)
	if err := expected(old, d.key, req.ExpectedVersion); err != nil {
		return change{}, err
	}
	if err := lateTriggers(st, d, old, now); err != nil {
		return change{}, err
	}
	if req.GetValidateOnly() {
		return change{done: &state.Result{Job: wouldBe(d, old, now)}}, nil
	}
	put := state.PutJob{Key: d.key, Definition: d.definition, Expected: req.ExpectedVersion, Effective: now}
	if old == nil {
		put.UID = newUID()
	}
	if old == nil || reflect.DeepEqual(old.Definition, d.definition) {
		return change{commands: []state.Command{put}}, nil
	}
	return s.settled(st, d.key, now, put)
}

// newUID draws the uid of a job. It is random and not counted, so that run ids,
// which are made of it, differ between clusters as well: jobs use them to tell
// whether they have done a piece of work.
func newUID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}

// settled puts commands behind those that decide all that came due before them.
// The last one answers.
func (s *Server) settled(st *state.State, k state.JobKey, now time.Time, commands ...state.Command) (change, error) {
	first, err := plan.Settle(st, k, s.Bounds, now)
	if err != nil {
		return change{}, err
	}
	commands = append(first, commands...)
	return change{commands: commands, answer: len(commands) - 1}, nil
}

// expected checks the version that the caller expects. The state checks it, too;
// but before, nothing should be settled in vain, and validate_only asks only us.
func expected(old *state.Job, k state.JobKey, want *uint64) error {
	if want == nil {
		return nil
	}
	switch {
	case old == nil && *want != 0:
		return fmt.Errorf("job %v does not exist, and version %d of it was expected: %w", k, *want, state.ErrVersion)
	case old != nil && *want == 0:
		return fmt.Errorf("job %v exists, at version %d, and was expected not to: %w", k, old.Version, state.ErrVersion)
	case old != nil && *want != old.Version:
		return fmt.Errorf("job %v is at version %d, and %d was expected; read it again: %w", k, old.Version, *want, state.ErrVersion)
	}
	return nil
}

// lateTriggers refuses triggers that come too late to ever fire. Those that are
// there already may be applied again.
func lateTriggers(st *state.State, d draft, old *state.Job, now time.Time) error {
	c := request()
	for i, t := range d.definition.Triggers {
		var decided time.Time
		if old != nil {
			if was := old.Definition.Trigger(t.ID); was != nil && was.Equal(t) {
				continue
			}
			decided = decidedUntil(st, old, t.ID)
		}
		if field, problem := neverAgain(t, d.compiled[i], now, decided); problem != "" {
			c.in("job").in("triggers").at(i).in(field).failf("%s", problem)
		}
	}
	return c.err()
}

// decidedUntil returns up to when a job's trigger of that id is decided, by whatever
// definition: a new one counts from there. It is zero when there never was one.
func decidedUntil(st *state.State, j *state.Job, trigger string) (until time.Time) {
	if t := st.Track(j.UID, trigger); t != nil {
		until = t.DecidedUntil
	}
	for _, t := range st.PastTracks(j.UID) {
		if t.Trigger.ID == trigger {
			until = latest(until, t.Ended)
		}
	}
	return until
}

// wouldBe returns the job as it would be stored.
func wouldBe(d draft, old *state.Job, now time.Time) *state.Job {
	if old == nil {
		return &state.Job{Key: d.key, Version: 1, Created: now, Updated: now, Definition: d.definition}
	}
	if reflect.DeepEqual(old.Definition, d.definition) {
		return old
	}
	j := *old
	j.Version++
	j.Updated, j.Definition, j.Quarantine = now, d.definition, ""
	return &j
}

func (s jobService) GetJob(_ context.Context, req *schedv1.GetJobRequest) (*schedv1.GetJobResponse, error) {
	k, err := readJobKey(req)
	if err != nil {
		return nil, err
	}
	j, now, err := s.job(k)
	if err != nil {
		return nil, err
	}
	return &schedv1.GetJobResponse{Job: s.showJob(j, now)}, nil
}

// readJobKey checks the name of a job in a request.
func readJobKey(req interface {
	GetNamespace() string
	GetName() string
},
) (state.JobKey, error) {
	c := request()
	k := c.jobKey(req.GetNamespace(), req.GetName())
	return k, c.err()
}

// job looks a job up.
func (s *Server) job(k state.JobKey) (j *state.Job, now time.Time, err error) {
	now = s.wallClock()
	s.Store.View(func(st *state.State) { j = st.Job(k) })
	if j == nil {
		return nil, now, fmt.Errorf("job %v: %w", k, state.ErrNotFound)
	}
	return j, now, nil
}

func (s jobService) DeleteJob(ctx context.Context, req *schedv1.DeleteJobRequest) (*schedv1.DeleteJobResponse, error) {
	k, err := readJobKey(req)
	if err != nil {
		return nil, err
	}
	_, _, err = s.agree(ctx, func(st *state.State, now time.Time) (change, error) {
		j := st.Job(k)
		if j == nil {
			return change{}, fmt.Errorf("job %v: %w", k, state.ErrNotFound)
		}
		if err := expected(j, k, req.ExpectedVersion); err != nil {
			return change{}, err
		}
		return s.settled(st, k, now, state.DeleteJob{Key: k, Expected: req.ExpectedVersion, Effective: now})
	})
	if err != nil {
		return nil, err
	}
	return &schedv1.DeleteJobResponse{}, nil
}

func (s jobService) PauseJob(ctx context.Context, req *schedv1.PauseJobRequest) (*schedv1.PauseJobResponse, error) {
	c := request()
	k := c.jobKey(req.GetNamespace(), req.GetName())
	pause := state.PauseJob{Key: k, Note: c.in("note").text(req.GetNote(), maxNote), Until: c.in("until").instant(req.GetUntil())}
	if now := s.wallClock(); !pause.Until.IsZero() && !pause.Until.After(now) {
		c.in("until").failf("lies in the past: it is %s now", now.UTC().Format(time.RFC3339))
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	r, now, err := s.agree(ctx, func(st *state.State, now time.Time) (change, error) {
		pause.Effective = now
		if j := st.Job(k); j != nil && j.Pause != nil && !paused(j, now) {
			// Another pause begins: it is not the old one, which ended by itself.
			return s.settled(st, k, now, state.ResumeJob{Key: k, Effective: now}, pause)
		}
		return s.settled(st, k, now, pause)
	})
	if err != nil {
		return nil, err
	}
	return &schedv1.PauseJobResponse{Job: s.showJob(r.Job, now)}, nil
}

func (s jobService) ResumeJob(ctx context.Context, req *schedv1.ResumeJobRequest) (*schedv1.ResumeJobResponse, error) {
	k, err := readJobKey(req)
	if err != nil {
		return nil, err
	}
	r, now, err := s.agree(ctx, func(st *state.State, now time.Time) (change, error) {
		return s.settled(st, k, now, state.ResumeJob{Key: k, Effective: now})
	})
	if err != nil {
		return nil, err
	}
	return &schedv1.ResumeJobResponse{Job: s.showJob(r.Job, now)}, nil
}

func (s jobService) RunJob(ctx context.Context, req *schedv1.RunJobRequest) (*schedv1.RunJobResponse, error) {
	c := request()
	k := c.jobKey(req.GetNamespace(), req.GetName())
	id := requestID(c, req.GetRequestId())
	if err := c.err(); err != nil {
		return nil, err
	}
	ask := plan.Ask{Job: k, Name: id}
	if req.GetRequestId() != "" { // nobody has asked before by a name that was just made up
		var err error
		if ask.Past, err = s.askedOf(ctx, k, id); err != nil {
			return nil, err
		}
	}
	r, err := s.byHand(ctx, ask)
	if err != nil {
		return nil, err
	}
	return &schedv1.RunJobResponse{Run: s.showOne(r)}, nil
}

// requestID checks the id of a request, and makes one up when there is none.
func requestID(c scope, id string) string {
	if id == "" {
		return rand.Text()
	}
	return c.in("request_id").text(id, maxRequestID)
}

// byHand has the leader decide on a run by hand. An answer that the primaries did not have
// to agree on is asked for again once it is confirmed that this one leads, as in
// [Server.agree].
func (s *Server) byHand(ctx context.Context, ask plan.Ask) (*state.Run, error) {
	answer, err := s.Decider.Ask(ctx, ask)
	if err == nil && !answer.Agreed {
		if err := s.confirm(ctx); err != nil {
			return nil, err
		}
		answer, err = s.Decider.Ask(ctx, ask)
	}
	if err != nil {
		return nil, err
	}
	return answer.Run, answer.Err
}
