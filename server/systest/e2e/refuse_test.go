//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

func validText(s string) bool { return utf8.ValidString(s) }

// refused asserts that a call was refused because of these fields, all of them
// and no other, each with a sentence that has these words.
func refused(t *testing.T, err error, want map[string]string) {
	t.Helper()
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v, want InvalidArgument for %v", err, want)
		return
	}
	got := violations(err)
	for field, words := range want {
		if said, named := got[field]; !named || !strings.Contains(said, words) {
			t.Errorf("%s: said is %q, want a word on %q", field, said, words)
		}
		delete(got, field)
	}
	for field, said := range got {
		t.Errorf("%s: %q is complained about as well", field, said)
	}
}

// A definition that can't work is refused with each wrong field and the reason,
// all at once; a primary that was asked such things goes on as if nothing had
// been.
func TestBadDefinitionsAreRefused(t *testing.T) {
	t.Parallel()
	w := newSilentWorld(t)
	w.start(t)
	triggers := func(ts ...*schedv1.Trigger) func(*schedv1.Job) { return func(j *schedv1.Job) { j.Triggers = ts } }
	calendar := func(expression, zone string) *schedv1.Trigger {
		return &schedv1.Trigger{When: &schedv1.Trigger_Cron{Cron: &schedv1.Cron{Expression: expression, TimeZone: zone}}}
	}
	interval := func(d *durationpb.Duration) *schedv1.Trigger {
		return &schedv1.Trigger{When: &schedv1.Trigger_Every{Every: &schedv1.Every{Interval: d}}}
	}
	for name, test := range map[string]struct {
		spoil func(*schedv1.Job)
		want  map[string]string
	}{
		"cron":        {triggers(calendar("61 * * * *", "")), map[string]string{"job.triggers[0].cron.expression": "61"}},
		"cron words":  {triggers(calendar("whenever", "")), map[string]string{"job.triggers[0].cron.expression": "minute, hour"}},
		"never":       {triggers(calendar("0 0 30 2 *", "")), map[string]string{"job.triggers[0].cron.expression": "never fires"}},
		"zone":        {triggers(calendar("0 3 * * *", "Europe/Atlantis")), map[string]string{"job.triggers[0].cron.time_zone": "Europe/Atlantis"}},
		"both":        {triggers(calendar("x", "y")), map[string]string{"job.triggers[0].cron.expression": "", "job.triggers[0].cron.time_zone": ""}},
		"interval":    {triggers(interval(seconds(0))), map[string]string{"job.triggers[0].every.interval": "1s"}},
		"no duration": {triggers(interval(&durationpb.Duration{Seconds: 1, Nanos: -1})), map[string]string{"job.triggers[0].every.interval": ""}},
		"past": {
			triggers(&schedv1.Trigger{When: &schedv1.Trigger_At{At: &schedv1.At{Time: stamp(1_000_000_000)}}}),
			map[string]string{"job.triggers[0].at.time": "past"},
		},
		"two of an id": {triggers(calendar("@daily", ""), calendar("@hourly", "")), map[string]string{"job.triggers[0].id": "", "job.triggers[1].id": ""}},
		"label key":    {func(j *schedv1.Job) { j.Labels = map[string]string{"-bad-": "x"} }, map[string]string{`job.labels["-bad-"]`: ""}},
		"label value":  {func(j *schedv1.Job) { j.Labels = map[string]string{"team": "a b"} }, map[string]string{`job.labels["team"]`: "a b"}},
		"name":         {func(j *schedv1.Job) { j.Name = "Capital Letters" }, map[string]string{"job.name": "Capital Letters"}},
		"no name":      {func(j *schedv1.Job) { j.Name = "" }, map[string]string{"job.name": "required"}},
		"namespace":    {func(j *schedv1.Job) { j.Namespace = "../etc" }, map[string]string{"job.namespace": "../etc"}},
		"timeout":      {func(j *schedv1.Job) { j.Policy.Timeout = seconds(-1) }, map[string]string{"job.policy.timeout": "-1s"}},
		"log limit":    {func(j *schedv1.Job) { j.Policy.LogLimitBytes = 1 }, map[string]string{"job.policy.log_limit_bytes": "65536"}},
		"enum":         {func(j *schedv1.Job) { j.Policy.Overlap = 77 }, map[string]string{"job.policy.overlap": "OVERLAP_SKIP"}},
		"no task":      {func(j *schedv1.Job) { j.Task = nil }, map[string]string{"job.task": "exec or script"}},
		"no argv":      {func(j *schedv1.Job) { j.Task.GetExec().Argv = nil }, map[string]string{"job.task.exec.argv": ""}},
		"selector":     {func(j *schedv1.Job) { j.Target = &schedv1.Target{Selector: "zone in eu"} }, map[string]string{"job.target.selector": ""}},
		"taken names":  {func(j *schedv1.Job) { j.Task.Env = map[string]string{"SCHEDD_RUN_ID": "1"} }, map[string]string{`job.task.env["SCHEDD_RUN_ID"]`: "SCHEDD_"}},
		"all at once": {func(j *schedv1.Job) {
			j.Name, j.Policy.Timeout, j.Task.WorkingDir = "!", seconds(-1), "here"
			j.Triggers = []*schedv1.Trigger{calendar("* * * *", "Mars"), {}}
		}, map[string]string{
			"job.name": "", "job.policy.timeout": "", "job.task.working_dir": "absolute",
			"job.triggers[0].cron.expression": "", "job.triggers[0].cron.time_zone": "", "job.triggers[1]": "",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			j := w.exec("fine", "/bin/true")
			test.spoil(j)
			_, err := w.jobs.PutJob(t.Context(), &schedv1.PutJobRequest{Job: j})
			refused(t, err, test.want)
		})
	}
	if resp, err := w.jobs.ListJobs(t.Context(), &schedv1.ListJobsRequest{}); err != nil || len(resp.GetJobs()) > 0 {
		t.Errorf("after all that the jobs are %v, %v", resp, err)
	}
	if code, text := w.get("/healthz"); code != 200 {
		t.Errorf("/healthz says %d %s", code, text)
	}

	call := grpcurl(t, w.api)
	const put = "schedd.v1.JobService/PutJob"
	call.fails(t, "", "trigers", `{"job": {"name": "x", "trigers": []}}`, put)
	call.fails(t, "", "OVERLAP_MAYBE", `{"job": {"name": "x", "policy": {"overlap": "OVERLAP_MAYBE"}}}`, put)
	call.fails(t, "", "duration", `{"job": {"name": "x", "policy": {"timeout": "ten minutes"}}}`, put)
	call.fails(t, "InvalidArgument", "job.triggers[0].cron.time_zone|Atlantis|job.task", `{"job": {"name": "x", "triggers": [{"cron": {"expression": "@daily", "time_zone": "Atlantis"}}]}}`, put)
	call.fails(t, "InvalidArgument", "colour|phase", `{"filter": "colour=blue"}`, "schedd.v1.RunService/ListRuns")
	call.fails(t, "NotFound", "nobody", `{"name": "nobody"}`, "schedd.v1.JobService/RunJob")
	call.fails(t, "FailedPrecondition", "no other primary", `{}`, "schedd.v1.ClusterService/TransferLeadership")
}

// What can't be started fails with a reason that says what to do, and the worker
// goes on.
func TestWhatCannotBeStarted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("echo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	elsewhere := w.exec("elsewhere", "/bin/true")
	elsewhere.Task.WorkingDir = "/no/such/directory"
	somebody := w.exec("somebody", "/bin/true")
	somebody.Task.User = "no-such-user"
	for _, test := range []struct {
		job    *schedv1.Job
		reason string
	}{
		{w.exec("path", "/no/such/program", "arg"), "/no/such/program"},
		{w.exec("name", "no-such-program"), "no-such-program"},
		{w.exec("plain", plain), "executable"},
		{w.exec("directory", "/"), "directory"},
		{elsewhere, "/no/such/directory"},
		{somebody, "no-such-user"},
		{w.script("interpreter", "#!/no/such/shell\necho"), "/no/such/shell"},
	} {
		run := w.putAndRun(t, test.job)
		phase(t, run, schedv1.Phase_PHASE_FAILED)
		if a := last(run); a.GetOutcome() != schedv1.Outcome_OUTCOME_NOT_STARTED || !strings.Contains(a.GetReason(), test.reason) || !strings.Contains(run.GetReason(), test.reason) {
			t.Errorf("job %s: the reason is %q, %v, want a word on %q", run.GetJob(), run.GetReason(), a, test.reason)
		}
	}
	phase(t, w.putAndRun(t, w.exec("fine", "/bin/true")), schedv1.Phase_PHASE_SUCCEEDED)
	if failed := w.putAndRun(t, w.exec("seven", "/bin/sh", "-c", "exit 7")); last(failed).GetExitCode() != 7 {
		t.Errorf("exit code 7 is wanted, got %v", failed)
	}
}

// What a host's policy does not allow is not started, whatever the primary says; a
// change of the policy counts at once.
func TestWorkerPolicy(t *testing.T) {
	t.Parallel()
	w := newSilentWorld(t)
	w.start(t)
	file := filepath.Join(t.TempDir(), "policy.yaml")
	rules := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rules("programs: [/bin/true]\nmax_timeout: 4s\n")
	w.worker = newWorker(t, w.primary, "w1", "--policy", file)
	w.worker.start(t, w.primary)
	phase(t, w.putAndRun(t, w.exec("allowed", "/bin/true")), schedv1.Phase_PHASE_SUCCEEDED)
	run := w.putAndRun(t, w.script("script", tell))
	phase(t, run, schedv1.Phase_PHASE_FAILED)
	if a := last(run); a.GetOutcome() != schedv1.Outcome_OUTCOME_NOT_STARTED || !strings.Contains(a.GetReason(), `policy does not let "/bin/sh" be started`) {
		t.Errorf("a refusal with its reason is wanted, got %v", a)
	}
	rules("programs: [/bin/*]\nmax_timeout: 4s\n")
	phase(t, w.putAndRun(t, w.script("script", tell)), schedv1.Phase_PHASE_SUCCEEDED)
	phase(t, w.putAndRun(t, w.exec("long", "/bin/sleep", "86400")), schedv1.Phase_PHASE_TIMED_OUT)

	// One with a slip says nothing about the job: the run waits until it is mended.
	rules("program: [/bin/*]\n")
	run = w.run(t, "allowed")
	w.awaitRun(t, run, "it was refused for the policy", func(r *schedv1.Run) bool {
		return r.GetPhase() == schedv1.Phase_PHASE_PENDING && strings.Contains(r.GetReason(), "nothing is started here") && strings.Contains(r.GetReason(), file)
	})
	rules("programs: [/bin/*]\n")
	phase(t, w.awaitEnd(t, run), schedv1.Phase_PHASE_SUCCEEDED)
	if n := len(w.effects(t)); n != 1 {
		t.Errorf("%d processes ran, want the second script only", n)
	}
}

// A worker whose disk is full says so, and works again when it is not.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"spool", "."} {
		t.Run(strings.ReplaceAll(dir, ".", "all"), func(t *testing.T) {
			t.Parallel()
			w := newSilentWorld(t)
			w.start(t)
			w.worker = newWorker(t, w.primary, "w1")
			disk := filepath.Join(w.worker.dir, dir)
			tinyDisk(t, disk)
			w.worker.start(t, w.primary)

			// What one job writes fills the disk: that job hears of it.
			run := w.putAndRun(t, w.script("greedy", `head -c 64M /dev/zero`))
			phase(t, run, schedv1.Phase_PHASE_FAILED)
			if !strings.Contains(run.GetReason(), "disk was full") {
				t.Errorf("the reason is %q, want that the disk was full", run.GetReason())
			}
			w.worker.emptied(t) // by shipping what did fit

			// One that does not care what becomes of its output says so too.
			run = w.putAndRun(t, w.script("careless", `head -c 64M /dev/zero || true`))
			phase(t, run, schedv1.Phase_PHASE_SUCCEEDED)
			if !strings.Contains(run.GetReason(), "disk was full") {
				t.Errorf("the reason is %q, want that the disk was full", run.GetReason())
			}
			w.worker.emptied(t)
			phase(t, w.putAndRun(t, w.script("modest", "echo fine")), schedv1.Phase_PHASE_SUCCEEDED)

			// It is full before a job starts: the run waits for a worker that can keep it,
			// which this one is again when there is room.
			w.worker.emptied(t)
			fill(t, disk)
			w.put(t, w.script("late", tell))
			run = w.run(t, "late")
			w.awaitRun(t, run, "it was refused for the disk", func(r *schedv1.Run) bool {
				return r.GetPhase() == schedv1.Phase_PHASE_PENDING && strings.Contains(r.GetReason(), "the disk is full")
			})
			if n := len(w.effects(t)); n != 0 {
				t.Errorf("%d processes ran on a full disk", n)
			}
			if err := os.Remove(filepath.Join(disk, "filler")); err != nil {
				t.Fatal(err)
			}
			phase(t, w.awaitEnd(t, run), schedv1.Phase_PHASE_SUCCEEDED)
			if n := len(w.effects(t)); n != 1 {
				t.Errorf("%d processes ran, want one", n)
			}
			w.worker.stop(t)
		})
	}
}

// tinyDisk puts a file system of few bytes at a directory.
func tinyDisk(t *testing.T, dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root may mount a tiny disk")
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m,mode=711"); err != nil {
		t.Skipf("no tiny disk can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// fill writes until nothing more fits.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for n := range 1 << 20 {
		if _, err := fmt.Fprintf(f, "%4096d", n); err != nil {
			return
		}
	}
	t.Fatalf("%s does not get full", dir)
}
