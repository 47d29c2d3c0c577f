//go:build e2e

package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// Jobs run on time: one each second and one by a calendar with seconds. What
// their processes wrote down, the runs and the ledger are three accounts of the
// same story.
func TestJobsRunOnTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "--labels", "zone=here")
	often := every(w.script("often", tell), time.Second)
	often.Target = &schedv1.Target{Selector: "zone in (here,there)"}
	w.put(t, often)
	w.put(t, cron(w.exec("calendar", "/bin/sh", "-c", tell), "*/2 * * * * *"))
	w.awaitRuns(t, "often", "five occurrences have run", succeeded(5))
	w.awaitRuns(t, "calendar", "three occurrences have run", succeeded(3))
	account(t, w, "often", "every", time.Second)
	account(t, w, "calendar", "cron", 2*time.Second)
}

// succeeded reports whether at least n runs have.
func succeeded(n int) func(map[string]*schedv1.Run) bool {
	return func(runs map[string]*schedv1.Run) bool {
		done := 0
		for _, r := range runs {
			if r.GetPhase() == schedv1.Phase_PHASE_SUCCEEDED {
				done++
			}
		}
		return done >= n
	}
}

// account holds the job's triggers, and compares what was written down, the runs
// and the ledger: each nominal instant once, none left out, all succeeded at
// their first attempt.
func account(t *testing.T, w *world, job, trigger string, interval time.Duration) {
	t.Helper()
	runs := w.pauseAll(t, job)
	effects := w.effects(t)
	var instants []time.Time
	for _, r := range runs {
		phase(t, r, schedv1.Phase_PHASE_SUCCEEDED)
		if len(r.GetAttempts()) != 1 || r.GetTriggerId() != trigger {
			t.Errorf("a run of trigger %s at its first attempt is wanted, got %v", trigger, r)
			continue
		}
		e, told := effects[r.GetId()+"/1"]
		nominal := r.GetNominalTime().AsTime()
		want := effect{r.GetId(), 1, last(r).GetFence(), nominal.Format(time.RFC3339Nano), job, trigger}
		if !told || e != want {
			t.Errorf("the process wrote down %+v, want %+v", e, want)
		}
		instants = append(instants, nominal)
	}
	for key, e := range effects {
		if e.job == job && runs[e.run] == nil {
			t.Errorf("a process ran as %s, and there is no such run", key)
		}
	}
	slices.SortFunc(instants, time.Time.Compare)
	for i, at := range instants {
		if !at.Equal(at.Truncate(interval)) || i > 0 && at.Sub(instants[i-1]) != interval {
			t.Errorf("job %s: the nominal instants are not each %v: %v", job, interval, instants)
			break
		}
	}
	verdicts := w.verify(t, job).GetTriggers()
	if len(verdicts) != 1 {
		t.Fatalf("job %s: %d triggers are verified, want one", job, len(verdicts))
	}
	if v := verdicts[0]; v.GetRan() != int64(len(runs)) || v.GetMissed() != 0 || v.GetNominal() != v.GetRan()+v.GetSkipped() {
		t.Errorf("job %s: the ledger has %d nominal, %d ran, %d skipped, %d missed; there are %d runs",
			job, v.GetNominal(), v.GetRan(), v.GetSkipped(), v.GetMissed(), len(runs))
	}
}

// A process finds in its environment who it is, what its job adds, and nothing
// of the worker's own.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	j := w.exec("env", "/usr/bin/env", "-0")
	j.Task.Env["COLOUR"] = "blue = \"green\"\n"
	j.Task.WorkingDir = "/"
	r := w.putAndRun(t, j)
	phase(t, r, schedv1.Phase_PHASE_SUCCEEDED)
	got := map[string]string{}
	for kv := range strings.SplitSeq(strings.TrimSuffix(string(w.readLog(t, r.GetId())), "\x00"), "\x00") {
		name, value, _ := strings.Cut(kv, "=")
		got[name] = value
	}
	for name, want := range map[string]string{
		"COLOUR": j.GetTask().GetEnv()["COLOUR"], "E2E_MARK": w.mark,
		"SCHEDD_RUN_ID": r.GetId(), "SCHEDD_ATTEMPT": "1", "SCHEDD_JOB": "env", "SCHEDD_NAMESPACE": "default", "SCHEDD_TRIGGER": "",
		"SCHEDD_FENCE":        strconv.FormatUint(last(r).GetFence(), 10),
		"SCHEDD_SCHEDULED_AT": r.GetNominalTime().AsTime().Format(time.RFC3339Nano),
		"SCHEDD_WORKER":       last(r).GetWorkerId(),
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	name, _, _ := strings.Cut(secret, "=")
	if _, leaked := got[name]; leaked {
		t.Errorf("the job sees the worker's own environment: %q", got)
	}
}

// Output can be read while it is written, from the middle, from the end, and
// whole when all is over. The job waits for the reader, so that nobody can
// pretend.
func TestLogIsFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put(t, w.script("talk", tell+`
		echo first
		while ! [ -e "$E2E_FILE.go" ]; do sleep 0.1; done
		echo second`))
	run := w.run(t, "talk") // followed from before its process is there
	log, err := w.followLog(t.Context(), run.GetId(), func(log []byte) bool { return string(log) == "first\n" })
	if err != nil {
		t.Fatalf("%v, after %q", err, log)
	}
	if r := w.awaitRunning(t, run); !r.GetFinishedTime().AsTime().IsZero() && r.GetFinishedTime() != nil {
		t.Errorf("the run has ended while its process waits: %v", r)
	}
	if err := os.WriteFile(w.file+".go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sameBytes(t, "the log that was followed", w.readLog(t, run.GetId()), []byte("first\nsecond\n"))
	run = w.awaitEnd(t, run)
	phase(t, run, schedv1.Phase_PHASE_SUCCEEDED)

	for _, test := range []struct {
		offset, limit int64
		want          string
	}{{0, 0, "first\nsecond\n"}, {6, 0, "second\n"}, {-7, 0, "second\n"}, {6, 3, "sec"}, {-1000, 5, "first"}, {13, 0, ""}} {
		stream, err := w.runs.ReadLog(t.Context(), &schedv1.ReadLogRequest{RunId: run.GetId(), Offset: test.offset, Limit: test.limit})
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for {
			m, err := stream.Recv()
			if err != nil {
				break
			}
			got = append(got, m.GetData()...)
		}
		sameBytes(t, fmt.Sprintf("the log from %d, limit %d", test.offset, test.limit), got, []byte(test.want))
	}
	// What is durable on the primary needs no copy on the worker.
	w.worker.emptied(t)
}

// All of it can be done with grpcurl, in the words of the documentation.
func TestGrpcurl(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "--labels", "zone=eu,disk=ssd")
	call := grpcurl(t, w.api)
	_, _ = call.ok(t, "", "list"), call.ok(t, "", "describe", "schedd.v1.JobService")
	call.json(t, map[string]any{"status": "SERVING"}, `{}`, "grpc.health.v1.Health/Check")
	call.ok(t, `{"job": {
	  "namespace": "default", "name": "nightly-report", "description": "...", "labels": {"team": "data"},
	  "triggers": [
	    {"id": "nightly", "cron": {"expression": "30 2 * * *", "time_zone": "Europe/Berlin",
	                               "dst_gap": "DST_GAP_RUN_AFTER", "dst_overlap": "DST_OVERLAP_FIRST"},
	     "jitter": "30s", "start_time": "2026-01-01T00:00:00Z", "end_time": "2100-01-01T00:00:00Z"},
	    {"id": "often", "every": {"interval": "90s", "phase": "0s"}},
	    {"id": "once",  "at": {"time": "2099-12-24T18:00:00Z"}}
	  ],
	  "task": { "exec": {"argv": ["/bin/echo", "--all"]},
	            "env": {"TZ": "UTC"}, "working_dir": "/", "stdin": "..." },
	  "target": {"selector": "zone=eu,!spot,disk in (ssd,nvme)", "strategy": "STRATEGY_LEAST_LOADED"},
	  "policy": {
	    "overlap": "OVERLAP_SKIP", "max_concurrent": 1,
	    "catch_up": "CATCH_UP_LATEST", "catch_up_window": "3600s",
	    "timeout": "600s", "kill_grace": "10s", "queue_timeout": "3600s", "start_within": "300s",
	    "retry": {"max_attempts": 3, "initial_delay": "1s", "multiplier": 2, "max_delay": "300s", "exit_codes": [75]},
	    "on_lost": "ON_LOST_FAIL", "lost_after": "180s", "kill_after": "120s", "log_limit_bytes": 67108864
	  }
	}}`, "schedd.v1.JobService/PutJob")
	var previewed struct {
		Occurrences []struct{ TriggerID, NominalTime, LocalTime, ZoneAbbreviation string }
	}
	call.into(t, &previewed, `{"name": "nightly-report", "count": 3, "start_time": "2027-03-28T00:59:00Z"}`, "schedd.v1.JobService/PreviewSchedule")
	if len(previewed.Occurrences) != 3 {
		t.Errorf("three instants are wanted, got %+v", previewed)
	}
	var ran struct {
		Run struct{ ID, Phase string }
	}
	call.into(t, &ran, `{"name": "nightly-report", "request_id": "same"}`, "schedd.v1.JobService/RunJob")
	first := ran.Run.ID
	call.into(t, &ran, `{"name": "nightly-report", "request_id": "same"}`, "schedd.v1.JobService/RunJob")
	if first == "" || ran.Run.ID != first {
		t.Errorf("the same request is run %q, and then run %q", first, ran.Run.ID)
	}
	var log struct {
		Data     []byte // JSON has base64 for bytes
		Complete bool
	}
	text := call.ok(t, `{"run_id": "`+first+`", "follow": true}`, "schedd.v1.RunService/ReadLog")
	var got []byte
	for d := json.NewDecoder(strings.NewReader(text)); d.More(); {
		if err := d.Decode(&log); err != nil {
			t.Fatal(err)
		}
		got, log.Data = append(got, log.Data...), nil
	}
	if !log.Complete || !bytes.Equal(got, []byte("--all\n")) {
		t.Errorf("the log is %q, complete %v", got, log.Complete)
	}
	call.ok(t, `{"filter": "phase=WORKER_PHASE_ONLINE,labels.zone=eu"}`, "schedd.v1.WorkerService/ListWorkers")
	call.ok(t, `{"filter": "job=nightly-report,phase in (PHASE_SUCCEEDED,PHASE_FAILED)"}`, "schedd.v1.RunService/ListRuns")
	call.ok(t, `{}`, "schedd.v1.ClusterService/GetStatus")
	call.ok(t, `{"name": "nightly-report"}`, "schedd.v1.JobService/DeleteJob")
	call.fails(t, "NotFound", "nightly-report", `{"name": "nightly-report"}`, "schedd.v1.JobService/GetJob")
}
