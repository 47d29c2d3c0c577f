package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
)

func allow(j *schedv1.Job) {
	j.Triggers = nil
	j.Policy = &schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_ALLOW}
}

func (p *primary) get(r *schedv1.Run) *schedv1.Run {
	p.t.Helper()
	now, err := p.runs.GetRun(p.t.Context(), &schedv1.GetRunRequest{Id: r.GetId()})
	if err != nil {
		p.t.Fatal(err)
	}
	return now.GetRun()
}

// The answer of who has a run made is of that moment: its log, which is younger, is not
// looked for. Who asks for the run itself is told of it.
func TestNoLogIsLookedForOfWhatCameLater(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j", allow))
		p.worker("w")
		r := p.run("j")
		var made *state.Run
		p.store.View(func(s *state.State) { made = s.Run(p.id(r)) })
		p.start(r, "w")
		key := p.logKey(r)
		p.append(key, 0, "hello")
		if _, err := p.logs.Sync(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		for from, want := range map[*schedv1.Run]int64{p.server.showOne(made): 0, p.get(r): 5} {
			if n := from.GetAttempts()[0].GetLogDurableBytes(); from.GetPhase() != schedv1.Phase_PHASE_RUNNING || n != want {
				t.Errorf("%v, want it to run, and %d bytes of its log", from, want)
			}
		}
	})
}

func TestGetRun(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j", allow))
		p.worker("w")
		r := p.run("j")
		fence := p.start(r, "w")
		key := p.logKey(r)
		p.append(key, 0, "hello")
		if _, err := p.logs.Sync(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if got := p.get(r); got.GetPhase() != schedv1.Phase_PHASE_RUNNING || got.GetReason() != "" || got.GetAttempts()[0].GetLogDurableBytes() != 5 {
			t.Errorf("running: %v", got)
		}
		began := time.Now().UTC()
		p.finish(r, fence, state.Attempt{
			Outcome: state.OutcomeFailed, ExitCode: 3, Signal: "SIGKILL", Reason: "why", LogBytes: 5, LogDropped: 6, MaxRSS: 7, CPUTime: time.Second, Finished: began,
		}, state.Failed)
		got := p.get(r)
		want := &schedv1.Attempt{}
		unmarshal(t, want, `{"number":1,"worker_id":"w","worker_name":"name-w","outcome":"OUTCOME_FAILED","exit_code":3,"signal":"SIGKILL","reason":"why",
			"log_bytes":5,"log_dropped_bytes":6,"log_durable_bytes":5,"max_rss_bytes":7,"cpu_time":"1s"}`)
		ts := timestamppb.New(began)
		want.Fence, want.AssignedTime, want.StartedTime, want.FinishedTime = fence, ts, ts, ts
		if d := cmp.Diff(want, got.GetAttempts()[0], protocmp.Transform()); d != "" {
			t.Error(d)
		}
		for id, code := range map[string]codes.Code{"": codes.InvalidArgument, "x": codes.InvalidArgument} {
			_, err := p.runs.GetRun(t.Context(), &schedv1.GetRunRequest{Id: id})
			says(t, err, code, "id")
		}
		_, err := p.runs.GetRun(t.Context(), &schedv1.GetRunRequest{Id: state.RunID{}.String()})
		says(t, err, codes.NotFound)
	})
}

func TestCancelRun(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j", allow))
		p.worker("w")
		cancel := func(r *schedv1.Run, note string) (*schedv1.Run, error) {
			c, err := p.runs.CancelRun(t.Context(), &schedv1.CancelRunRequest{Id: r.GetId(), Note: note})
			return c.GetRun(), err
		}
		waits := p.run("j")
		got, err := cancel(waits, "")
		if err != nil || got.GetPhase() != schedv1.Phase_PHASE_CANCELLED || got.GetReason() != "cancelled by request" {
			t.Errorf("cancelled while it waits: %v, %v", got, err)
		}
		_, err = cancel(waits, "")
		says(t, err, codes.FailedPrecondition)

		runs := p.run("j")
		p.start(runs, "w")
		for range 2 { // asking twice is asking once
			got, err = cancel(runs, "enough")
			if err != nil || got.GetPhase() != schedv1.Phase_PHASE_RUNNING || got.GetCancelRequestedTime() == nil || got.GetReason() != "is being ended: enough" {
				t.Errorf("cancelled while it runs: %v, %v", got, err)
			}
		}
		_, err = cancel(&schedv1.Run{Id: state.RunID{}.String()}, strings.Repeat("x", 1025))
		says(t, err, codes.InvalidArgument, "note")
		_, err = cancel(&schedv1.Run{Id: state.RunID{}.String()}, "")
		says(t, err, codes.NotFound)
	})
}

func TestRetryRun(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j"))
		retry := func(r *schedv1.Run, request string) (*schedv1.Run, error) {
			n, err := p.runs.RetryRun(t.Context(), &schedv1.RetryRunRequest{Id: r.GetId(), RequestId: request})
			return n.GetRun(), err
		}
		sleep(time.Minute)
		p.put(aJob("j", func(j *schedv1.Job) { j.Description = "settled" })) // decides the occurrence
		id := p.active("j")
		origin := p.get(&schedv1.Run{Id: id.String()})
		_, err := retry(origin, "")
		says(t, err, codes.FailedPrecondition)
		p.do(state.Cancel{Run: id})
		again, err := retry(origin, "once")
		if err != nil || again.GetRetryOf() != origin.GetId() || again.GetTriggerId() != "every" || !again.GetNominalTime().AsTime().Equal(origin.GetNominalTime().AsTime()) {
			t.Fatalf("retried: %v, %v", again, err)
		}
		if twice, err := retry(origin, "once"); err != nil || twice.GetId() != again.GetId() {
			t.Errorf("asked twice: %v, %v", twice, err)
		}
		_, err = retry(origin, "other")
		says(t, err, codes.FailedPrecondition) // overlap
		p.do(state.Cancel{Run: p.id(again)})
		if other, err := p.runs1("j", "once"); err != nil || other.GetId() == again.GetId() {
			t.Errorf("RunJob with the same request_id: %v, %v", other, err)
		}
		if _, err := p.jobs.DeleteJob(t.Context(), &schedv1.DeleteJobRequest{Name: "j"}); err != nil {
			t.Fatal(err)
		}
		p.put(aJob("j")) // another job of that name
		_, err = retry(origin, "")
		says(t, err, codes.NotFound)
	})
}

func TestListRuns(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("a", allow))
		p.put(aJob("b", allow))
		p.worker("w")
		var ids []string // oldest first
		for i := range 25 {
			r := p.run([]string{"a", "b"}[i%2])
			ids = append(ids, r.GetId())
			if i%5 == 0 {
				p.start(r, "w")
			}
			sleep(time.Second)
		}
		list := func(req *schedv1.ListRunsRequest) (got []string) {
			for {
				r, err := p.runs.ListRuns(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				if len(r.GetRuns()) > int(req.GetPageSize()) && req.GetPageSize() > 0 {
					t.Fatalf("%d runs on a page of %d", len(r.GetRuns()), req.GetPageSize())
				}
				for _, r := range r.GetRuns() {
					got = append(got, r.GetId())
				}
				if req.PageToken = r.GetNextPageToken(); req.GetPageToken() == "" {
					return got
				}
			}
		}
		want := func(keep func(i int) bool) (want []string) {
			for i, id := range slices.Backward(ids) {
				if keep(i) {
					want = append(want, id)
				}
			}
			return want
		}
		at := func(i int) *timestamppb.Timestamp {
			return timestamppb.New(time.Date(2000, 1, 1, 0, 0, i, 0, time.UTC))
		}
		for _, tt := range []struct {
			req  *schedv1.ListRunsRequest
			keep func(i int) bool
		}{
			{&schedv1.ListRunsRequest{}, func(int) bool { return true }},
			{&schedv1.ListRunsRequest{PageSize: 25}, func(int) bool { return true }},
			{&schedv1.ListRunsRequest{Filter: "job=a"}, func(i int) bool { return i%2 == 0 }},
			{&schedv1.ListRunsRequest{Filter: "job notin (a),phase=PHASE_RUNNING"}, func(i int) bool { return i%2 == 1 && i%5 == 0 }},
			{&schedv1.ListRunsRequest{Filter: "worker=name-w"}, func(i int) bool { return i%5 == 0 }},
			{&schedv1.ListRunsRequest{Filter: "worker in (w,v)"}, func(i int) bool { return i%5 == 0 }},
			{&schedv1.ListRunsRequest{Filter: "!worker,active"}, func(i int) bool { return i%5 != 0 }},
			{&schedv1.ListRunsRequest{Filter: "active=false"}, func(int) bool { return false }},
			{&schedv1.ListRunsRequest{Filter: "!trigger,active!=false"}, func(int) bool { return true }},
			{&schedv1.ListRunsRequest{CreatedAfter: at(3), CreatedBefore: at(7)}, func(i int) bool { return 3 < i && i < 7 }},
		} {
			for _, size := range []int32{tt.req.GetPageSize(), 1, 7} {
				tt.req.PageSize = size
				if d := cmp.Diff(want(tt.keep), list(tt.req)); d != "" {
					t.Errorf("%v: %s", tt.req, d)
				}
			}
		}
	})
}

// More runs than are looked at under one lock: each that is wanted is found once, also
// where one look ends and the next one begins.
func TestListGoesOnWhereALookEnded(t *testing.T) {
	const runs = 2*maxScan + 10
	s := runService{Server: withRuns(runs, maxScan)}
	for _, i := range []int{0, 1, 9, 10, maxScan - 1} { // from the newest one
		n := runs - 1 - i
		var want []time.Time
		s.Store.View(func(st *state.State) {
			for r := range st.RunsBefore(0) {
				if (int(r.Serial)-1)%maxScan == n%maxScan {
					want = append(want, r.Created.UTC())
				}
			}
		})
		for _, size := range []int32{1, 2, 100} {
			var got []time.Time
			req := &schedv1.ListRunsRequest{Filter: fmt.Sprint("job=report-", n%maxScan+1), PageSize: size}
			for more := true; more && len(got) <= len(want); more = req.GetPageToken() != "" {
				page, err := s.ListRuns(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range page.GetRuns() {
					got = append(got, r.GetCreatedTime().AsTime())
				}
				req.PageToken = page.GetNextPageToken()
			}
			if d := cmp.Diff(want, got); d != "" || len(want) < 2 {
				t.Errorf("run %d from the newest, pages of %d: %s", i, size, d)
			}
		}
	}
}

func TestListsRefuse(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("a"))
		p.put(aJob("b"))
		first, err := p.jobs.ListJobs(t.Context(), &schedv1.ListJobsRequest{PageSize: 1, Filter: "!paused"})
		if err != nil || first.GetNextPageToken() == "" {
			t.Fatal(first, err)
		}
		for _, tt := range []struct {
			req    *schedv1.ListRunsRequest
			fields []string
		}{
			{&schedv1.ListRunsRequest{PageSize: -1, Filter: "colour=red"}, []string{"page_size", "filter"}},
			{&schedv1.ListRunsRequest{PageSize: 1001}, []string{"page_size"}},
			{&schedv1.ListRunsRequest{Filter: "job in a"}, []string{"filter"}},
			{&schedv1.ListRunsRequest{Filter: "phase=failed"}, []string{"filter"}},
			{&schedv1.ListRunsRequest{Filter: "active=yes"}, []string{"filter"}},
			{&schedv1.ListRunsRequest{Filter: "job>1"}, []string{"filter"}},
			{&schedv1.ListRunsRequest{Filter: "labels.a=b"}, []string{"filter"}},
			{&schedv1.ListRunsRequest{PageToken: "???"}, []string{"page_token"}},
			{&schedv1.ListRunsRequest{PageToken: first.GetNextPageToken()}, []string{"page_token"}},
			{&schedv1.ListRunsRequest{CreatedAfter: &timestamppb.Timestamp{Nanos: -1}}, []string{"created_after"}},
		} {
			_, err := p.runs.ListRuns(t.Context(), tt.req)
			says(t, err, codes.InvalidArgument, tt.fields...)
		}
		_, err = p.jobs.ListJobs(t.Context(), &schedv1.ListJobsRequest{PageToken: first.GetNextPageToken(), Filter: "paused"})
		says(t, err, codes.InvalidArgument, "page_token")
		second, err := p.jobs.ListJobs(t.Context(), &schedv1.ListJobsRequest{PageToken: first.GetNextPageToken(), Filter: "!paused"})
		if err != nil || len(second.GetJobs()) != 1 || second.GetJobs()[0].GetName() != "b" || second.GetNextPageToken() != "" {
			t.Error(second, err)
		}
	})
}

func TestListJobs(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		for i := range 10 {
			p.put(aJob(fmt.Sprintf("j%d", i), func(j *schedv1.Job) {
				j.Namespace = []string{"x", "y"}[i%2]
				j.Labels = map[string]string{"n": fmt.Sprint(i), "team": []string{"data", "web", "ops"}[i%3]}
			}))
		}
		if _, err := p.jobs.PauseJob(t.Context(), &schedv1.PauseJobRequest{Namespace: "x", Name: "j0"}); err != nil {
			t.Fatal(err)
		}
		for filter, want := range map[string]string{
			"":                                      "j0 j2 j4 j6 j8 j1 j3 j5 j7 j9",
			"namespace=y":                           "j1 j3 j5 j7 j9",
			"labels.team in (data,web),namespace=x": "j0 j4 j6",
			"labels.n>7":                            "j8 j9",
			"!labels.n":                             "",
			"paused":                                "j0",
			"paused=false,labels.team=data":         "j6 j3 j9",
			"!quarantined,name notin (j1)":          "j0 j2 j4 j6 j8 j3 j5 j7 j9",
		} {
			var got []string
			req := &schedv1.ListJobsRequest{Filter: filter, PageSize: 3}
			for {
				r, err := p.jobs.ListJobs(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				for _, j := range r.GetJobs() {
					got = append(got, j.GetName())
				}
				if req.PageToken = r.GetNextPageToken(); req.GetPageToken() == "" {
					break
				}
			}
			if d := cmp.Diff(want, strings.Join(got, " ")); d != "" {
				t.Errorf("%q: %s", filter, d)
			}
		}
	})
}

// A page ends before it is larger than a client takes.
func TestPagesFitAMessage(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		const n = 20
		for i := range n {
			p.put(aJob(fmt.Sprintf("j%02d", i), func(j *schedv1.Job) {
				j.Triggers = nil
				j.Task.Stdin, j.Task.Env = strings.Repeat("x", 128<<10), map[string]string{"A": strings.Repeat("x", 128<<10), "B": strings.Repeat("x", 128<<10)}
			}))
		}
		pages, jobs := 0, 0
		for req := (&schedv1.ListJobsRequest{}); ; pages++ {
			r, err := p.jobs.ListJobs(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			jobs += len(r.GetJobs())
			if req.PageToken = r.GetNextPageToken(); req.GetPageToken() == "" {
				break
			}
		}
		if jobs != n || pages < 2 {
			t.Errorf("%d jobs on %d pages", jobs, pages+1)
		}
	})
}
