package api

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// jobNow is a job at one moment.
type jobNow struct {
	*state.Job
	now time.Time
}

var jobFields = map[string]field[jobNow]{
	"namespace":   one(func(j jobNow) string { return j.Key.Namespace }),
	"name":        one(func(j jobNow) string { return j.Key.Name }),
	"paused":      flag(func(j jobNow) bool { return paused(j.Job, j.now) }),
	"quarantined": flag(func(j jobNow) bool { return j.Quarantine != "" }),
}

func jobLabels(j jobNow) map[string]string { return j.Definition.Labels.Map() }

func (s jobService) ListJobs(_ context.Context, req *schedv1.ListJobsRequest) (*schedv1.ListJobsResponse, error) {
	c := request()
	page := c.page(req.GetPageSize(), req.GetPageToken(), "jobs", req.GetFilter())
	f := readFilter(c.in("filter"), req.GetFilter(), jobFields, jobLabels)
	if err := c.err(); err != nil {
		return nil, err
	}
	after := state.JobKey{Namespace: page.from.First, Name: page.from.Second}
	var jobs []jobNow
	s.Store.View(func(st *state.State) {
		now := s.wallClock()
		for j := range st.Jobs() {
			if n := (jobNow{j, now}); j.Key.Compare(after) > 0 && f.matches(n) {
				jobs = append(jobs, n)
			}
		}
	})
	slices.SortFunc(jobs, func(a, b jobNow) int { return a.Key.Compare(b.Key) })
	answer := &schedv1.ListJobsResponse{}
	for i, j := range jobs {
		p := s.showJob(j.Job, j.now)
		if !page.add(p) {
			last := jobs[i-1].Key
			answer.NextPageToken = page.token(0, last.Namespace, last.Name)
			break
		}
		answer.Jobs = append(answer.Jobs, p)
	}
	return answer, nil
}

var runFields = map[string]field[*state.Run]{
	"namespace": one(func(r *state.Run) string { return r.Job.Namespace }),
	"job":       one(func(r *state.Run) string { return r.Job.Name }),
	"phase":     one(func(r *state.Run) string { return phaseNames[r.Phase] }, allowedNames[schedv1.Phase]()...),
	"trigger":   one(func(r *state.Run) string { return r.Trigger }),
	"active":    flag(func(r *state.Run) bool { return !r.Phase.Final() }),
	"worker": {any: func(r *state.Run, does func(string) bool) bool {
		return slices.ContainsFunc(r.Attempts, func(a state.Attempt) bool { return does(string(a.Worker)) || does(a.WorkerName) })
	}},
}

// phaseNames is the names of the phases, by the state's number.
var phaseNames = func() map[state.Phase]string {
	names := map[state.Phase]string{}
	for _, p := range phases {
		names[p.inside] = p.api.String()
	}
	return names
}()

// maxScan bounds the runs that are looked at under one lock of the state, so
// that a list of a long history never holds the scheduler up.
const maxScan = 5000

func (s runService) ListRuns(ctx context.Context, req *schedv1.ListRunsRequest) (*schedv1.ListRunsResponse, error) {
	c := request()
	after, before := c.in("created_after").instant(req.GetCreatedAfter()), c.in("created_before").instant(req.GetCreatedBefore())
	page := c.page(req.GetPageSize(), req.GetPageToken(), "runs", req.GetFilter(), after.String(), before.String())
	f := readFilter(c.in("filter"), req.GetFilter(), runFields, nil)
	if err := c.err(); err != nil {
		return nil, err
	}
	if !before.IsZero() {
		f = append(f, func(r *state.Run) bool { return r.Created.Before(before) })
	}
	answer := &schedv1.ListRunsResponse{}
	list := s.newRunList(f, req.GetFilter(), after, before, page.from.Serial, page.size+1)
	for last := page.from.Serial; ; {
		g, ok, err := list.next(ctx)
		if err != nil {
			return nil, err
		}
		answer.IncompleteReason = list.why
		if !ok {
			return answer, nil
		}
		p := s.showMany(g)
		if !page.add(p) {
			answer.NextPageToken = page.token(last, "", "")
			return answer, nil
		}
		answer.Runs = append(answer.Runs, p)
		last = g.run.Serial
	}
}

// runScan goes through the runs in the state, the newest first.
type runScan struct {
	filter filter[*state.Run]
	after  time.Time // leaves out what was created up to then
	most   int       // runs to return at a time
	from   uint64    // serial of the last run that was looked at; 0: none yet
	done   bool
}

// scan returns the next runs that match. It may return none although the scan is
// not done.
func (s *Server) scan(c *runScan) []glance {
	var found []glance
	s.Store.View(func(st *state.State) {
		l := look(st, s.wallClock())
		seen := 0
		var last *state.Run
		for r := range st.RunsBefore(c.from) {
			if !c.after.IsZero() && !r.Created.After(c.after) {
				break // older ones were created even earlier
			}
			if seen++; seen > maxScan || len(found) >= c.most {
				c.from = last.Serial // only now: most of what is looked at takes long to read
				return
			}
			last = r
			if c.filter.matches(r) {
				found = append(found, l.at(r))
			}
		}
		c.done = true
	})
	return found
}

var workerFields = map[string]field[*schedv1.Worker]{
	"id":    one((*schedv1.Worker).GetId),
	"name":  one((*schedv1.Worker).GetName),
	"phase": one(func(w *schedv1.Worker) string { return w.GetPhase().String() }, allowedNames[schedv1.WorkerPhase]()...),
	"mode":  one(func(w *schedv1.Worker) string { return w.GetMode().String() }, allowedNames[schedv1.Worker_Mode]()...),
}

func (s workerService) ListWorkers(_ context.Context, req *schedv1.ListWorkersRequest) (*schedv1.ListWorkersResponse, error) {
	c := request()
	page := c.page(req.GetPageSize(), req.GetPageToken(), "workers", req.GetFilter())
	f := readFilter(c.in("filter"), req.GetFilter(), workerFields, (*schedv1.Worker).GetLabels)
	if err := c.err(); err != nil {
		return nil, err
	}
	var all []workerNow
	s.Store.View(func(st *state.State) {
		for _, w := range st.Workers() {
			all = append(all, workerNow{w, st.Load(w.ID)})
		}
	})
	slices.SortFunc(all, func(a, b workerNow) int { return compareWorkers(a.Says.Name, string(a.ID), b.Says.Name, string(b.ID)) })
	answer := &schedv1.ListWorkersResponse{}
	var last *schedv1.Worker
	for _, w := range all {
		if page.from.Second != "" && compareWorkers(w.Says.Name, string(w.ID), page.from.First, page.from.Second) <= 0 {
			continue
		}
		p := s.showWorker(w)
		if !f.matches(p) {
			continue
		}
		if !page.add(p) {
			answer.NextPageToken = page.token(0, last.GetName(), last.GetId())
			break
		}
		answer.Workers = append(answer.Workers, p)
		last = p
	}
	return answer, nil
}

func compareWorkers(name1, id1, name2, id2 string) int {
	return cmp.Or(strings.Compare(name1, name2), strings.Compare(id1, id2))
}
