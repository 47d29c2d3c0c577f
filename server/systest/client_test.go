package systest

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// put is one definition of a job.
type put struct {
	at  time.Time    // when it was asked for
	job *schedv1.Job // as it was acknowledged, with defaults filled in
}

// job returns the definition of a job, with parts added.
func job(name string, parts ...func(*schedv1.Job)) *schedv1.Job {
	j := &schedv1.Job{
		Name: name, Policy: &schedv1.Policy{},
		Task: &schedv1.Task{Do: &schedv1.Task_Exec{Exec: &schedv1.Exec{Argv: []string{name}}}},
	}
	for _, part := range parts {
		part(j)
	}
	return j
}

// trigger adds a trigger, named by its kind and number.
func trigger(j *schedv1.Job, t *schedv1.Trigger) {
	t.Id = fmt.Sprintf("t%d", len(j.GetTriggers())+1)
	j.Triggers = append(j.Triggers, t)
}

func cron(expression, zone string) func(*schedv1.Job) {
	return func(j *schedv1.Job) {
		trigger(j, &schedv1.Trigger{When: &schedv1.Trigger_Cron{Cron: &schedv1.Cron{Expression: expression, TimeZone: zone}}})
	}
}

func every(interval time.Duration) func(*schedv1.Job) {
	return func(j *schedv1.Job) {
		trigger(j, &schedv1.Trigger{When: &schedv1.Trigger_Every{Every: &schedv1.Every{Interval: durationpb.New(interval)}}})
	}
}

func at(instant time.Time) func(*schedv1.Job) {
	return func(j *schedv1.Job) {
		trigger(j, &schedv1.Trigger{When: &schedv1.Trigger_At{At: &schedv1.At{Time: timestamppb.New(instant)}}})
	}
}

// policy sets fields of the policy.
func policy(p *schedv1.Policy) func(*schedv1.Job) {
	return func(j *schedv1.Job) { proto.Merge(j.GetPolicy(), p) }
}

func selector(s string) func(*schedv1.Job) {
	return func(j *schedv1.Job) { j.Target = &schedv1.Target{Selector: s} }
}

func seconds(n float64) *durationpb.Duration {
	return durationpb.New(time.Duration(n * float64(time.Second)))
}

// must ends the story when a call fails.
func must[T any](w *world) func(T, error) T {
	return func(answer T, err error) T {
		w.Helper()
		if err != nil {
			w.Fatalf("the API refused: %v", err)
		}
		return answer
	}
}

// refused checks that a call fails with a code, and returns what it said.
func (w *world) refused(err error, want codes.Code) string {
	w.Helper()
	if status.Code(err) != want {
		w.Errorf("the API answered %v, want %v", err, want)
	}
	return status.Convert(err).Message()
}

// define puts a job.
func (w *world) define(j *schedv1.Job) *schedv1.Job {
	w.Helper()
	return must[*schedv1.Job](w)(w.putJob(j))
}

// deleteJob deletes a job.
func (w *world) deleteJob(name string) {
	w.Helper()
	if err := w.removeJob(name); err != nil {
		w.Fatalf("the API refused: %v", err)
	}
}

// removeJob deletes a job, and takes note of what it is told.
func (w *world) removeJob(name string) error {
	w.asked.unpaused(name)
	_, err := w.primary.jobs.DeleteJob(w.Context(), &schedv1.DeleteJobRequest{Name: name})
	if err == nil {
		w.asked.deleted(name)
	}
	return err
}

// run runs a job by hand.
func (w *world) run(name string) *schedv1.Run {
	w.Helper()
	return must[*schedv1.RunJobResponse](w)(w.runJob(&schedv1.RunJobRequest{Name: name})).GetRun()
}

// get returns a run as it is now.
func (w *world) get(id string) *schedv1.Run {
	w.Helper()
	return must[*schedv1.GetRunResponse](w)(w.primary.runs.GetRun(w.Context(), &schedv1.GetRunRequest{Id: id})).GetRun()
}

func (w *world) cancel(id string) {
	w.Helper()
	must[*schedv1.CancelRunResponse](w)(w.cancelRun(id))
}

// runs returns the runs that match a filter, the oldest first.
func (w *world) runs(filter string) []*schedv1.Run {
	w.Helper()
	all, _, err := w.list(filter)
	if err != nil {
		w.Fatalf("the API refused: %v", err)
	}
	return all
}

// list returns the runs that match a filter, the oldest first, and why some may be
// missing; or why there was no answer.
func (w *world) list(filter string) (all []*schedv1.Run, incomplete string, err error) {
	for req := (&schedv1.ListRunsRequest{PageSize: 1000, Filter: filter}); ; {
		r, err := w.primary.runs.ListRuns(w.Context(), req)
		if err != nil {
			return nil, "", err
		}
		all, incomplete = append(all, r.GetRuns()...), cmp.Or(incomplete, r.GetIncompleteReason())
		if req.PageToken = r.GetNextPageToken(); req.PageToken == "" {
			slices.Reverse(all)
			return all, incomplete, nil
		}
	}
}

// runsOf returns the runs of a job, the oldest first.
func (w *world) runsOf(name string) []*schedv1.Run {
	w.Helper()
	return w.runs("job=" + name)
}

// only returns the one run of a job.
func (w *world) only(name string) *schedv1.Run {
	w.Helper()
	all := w.runsOf(name)
	if len(all) != 1 {
		w.Fatalf("%s has %d runs, want 1: %v", name, len(all), phases(all))
	}
	return all[0]
}

// jobs returns all jobs by name.
func (w *world) jobs() []*schedv1.Job {
	w.Helper()
	var all []*schedv1.Job
	for req := (&schedv1.ListJobsRequest{PageSize: 1000}); ; {
		r := must[*schedv1.ListJobsResponse](w)(w.primary.jobs.ListJobs(w.Context(), req))
		all = append(all, r.GetJobs()...)
		if req.PageToken = r.GetNextPageToken(); req.PageToken == "" {
			return all
		}
	}
}

// known returns what the primary knows of a worker; nil when it knows none of
// that name.
func (w *world) known(name string) *schedv1.Worker {
	w.Helper()
	r := must[*schedv1.ListWorkersResponse](w)(w.primary.workers.ListWorkers(w.Context(), &schedv1.ListWorkersRequest{Filter: "name=" + name}))
	if len(r.GetWorkers()) == 0 {
		return nil
	}
	return r.GetWorkers()[0]
}

// awaitOnline waits until all workers that live can be given runs.
func (w *world) awaitOnline() {
	w.Helper()
	for _, k := range w.workers {
		if k.life != nil {
			w.await(k.name+" is online", 2*time.Minute, func() bool {
				is := w.known(k.name)
				return is.GetPhase() == schedv1.WorkerPhase_WORKER_PHASE_ONLINE && is.GetConnectedTime() != nil
			})
		}
	}
	w.wait(time.Second) // for what they have to tell
}

// awaitPhase waits until a run is in one of the phases, and returns it.
func (w *world) awaitPhase(id string, limit time.Duration, want ...schedv1.Phase) *schedv1.Run {
	w.Helper()
	var r *schedv1.Run
	for deadline := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		if r = w.get(id); slices.Contains(want, r.GetPhase()) {
			return r
		}
		if time.Now().After(deadline) {
			w.Fatalf("run %s is %v (%s) after %v, want %v", id, r.GetPhase(), r.GetReason(), limit, want)
		}
	}
}

// readLog reads an attempt's log from an offset to its present end, and tells
// whether that is all.
func (w *world) readLog(req *schedv1.ReadLogRequest) (data []byte, complete bool) {
	w.Helper()
	stream := must[logStream](w)(w.primary.runs.ReadLog(w.Context(), req))
	at := req.GetOffset()
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return data, complete
		}
		if err != nil {
			w.Fatalf("reading the log of %s: %v", req.GetRunId(), err)
		}
		if at >= 0 && m.GetOffset() != at {
			w.Errorf("the log of %s goes on at offset %d, want %d", req.GetRunId(), m.GetOffset(), at)
		}
		at = m.GetOffset() + int64(len(m.GetData()))
		data, complete = append(data, m.GetData()...), m.GetComplete()
	}
}

type logStream = interface {
	Recv() (*schedv1.ReadLogResponse, error)
}

func final(p schedv1.Phase) bool { return p >= schedv1.Phase_PHASE_SUCCEEDED }

// phases tells runs in a line.
func phases(runs []*schedv1.Run) string {
	var s []string
	for _, r := range runs {
		s = append(s, fmt.Sprintf("%s %s", r.GetNominalTime().AsTime().Format("15:04:05"), strings.TrimPrefix(r.GetPhase().String(), "PHASE_")))
	}
	return strings.Join(s, ", ")
}

func stamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }
