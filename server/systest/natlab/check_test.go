//go:build e2e && linux

package natlab_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// tell is a line of shell that says who runs and when: once for each attempt that
// was started, whatever becomes of it.
const tell = `echo "$SCHEDD_RUN_ID $SCHEDD_ATTEMPT $SCHEDD_FENCE $SCHEDD_SCHEDULED_AT $SCHEDD_JOB $(date +%s.%N)" >>"$LAB_FILE"` + "\n"

// effect is what an attempt told.
type effect struct {
	run     string
	attempt uint64
	fence   uint64
	nominal time.Time
	job     string
	at      time.Time // when it ran
}

// effects returns what the attempts of a job told, by run and attempt. Nothing
// may be told twice.
func (l *lab) effects(t *testing.T, job string) map[string]effect {
	t.Helper()
	all := map[string]effect{}
	text, err := os.ReadFile(l.file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 6 {
			t.Fatalf("a line of %d words in the file of effects: %q", len(f), line)
		}
		if f[4] != job {
			continue
		}
		key := f[0] + "/" + f[1]
		if _, twice := all[key]; twice {
			t.Errorf("run %s attempt %s was started twice", f[0], f[1])
		}
		attempt, err1 := strconv.ParseUint(f[1], 10, 32)
		fence, err2 := strconv.ParseUint(f[2], 10, 64)
		nominal, err3 := time.Parse(time.RFC3339Nano, f[3])
		if err1 != nil || err2 != nil || err3 != nil {
			t.Errorf("the file of effects has %q", line)
		}
		all[key] = effect{f[0], attempt, fence, nominal, f[4], moment(t, f[5])}
	}
	return all
}

// moment reads seconds since 1970 with some decimals.
func moment(t *testing.T, text string) time.Time {
	t.Helper()
	s, ns, _ := strings.Cut(strings.TrimSpace(text), ".")
	secs, err1 := strconv.ParseInt(s, 10, 64)
	nanos, err2 := strconv.ParseInt((ns + "000000000")[:9], 10, 64)
	if err1 != nil || err2 != nil {
		t.Errorf("%q is no time", text)
	}
	return time.Unix(secs, nanos)
}

// script is a job for one worker. Its definition may be changed before it is put.
func (l *lab) script(name string, on *worker, body string) *schedv1.Job {
	return &schedv1.Job{
		Name:   name,
		Target: &schedv1.Target{Selector: "lab=" + on.name},
		Task: &schedv1.Task{
			Do:  &schedv1.Task_Script{Script: &schedv1.Script{Body: body}},
			Env: map[string]string{"LAB_FILE": l.file},
		},
		Policy: &schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_ALLOW},
	}
}

// ticking has a job tick each second on both workers while something happens,
// and then until it has ticked in peace. Then what the processes wrote down, the
// runs and the ledger have to tell the same story: each second once on each
// worker, none left out.
func (l *lab) ticking(t *testing.T, during func()) (a, b *story) {
	t.Helper()
	a, b = l.newStory(t, l.a), l.newStory(t, l.b)
	for _, s := range []*story{a, b} {
		l.awaitList(t, s.job, "two have run", succeeded(2))
	}
	during()
	now := time.Now()
	for _, s := range []*story{a, b} {
		l.awaitList(t, s.job, "two have run afterwards", func(runs []*schedv1.Run) bool {
			return succeeded(2)(slices.DeleteFunc(runs, func(r *schedv1.Run) bool { return r.GetNominalTime().AsTime().Before(now) }))
		})
	}
	l.account(t, a)
	l.account(t, b)
	return a, b
}

// story is that of a job that ticks.
type story struct {
	job     string
	runs    []*schedv1.Run    // by instant
	effects map[string]effect // by run and attempt
}

// eachSecond is when jobs tick.
var eachSecond = []*schedv1.Trigger{{When: &schedv1.Trigger_Every{Every: &schedv1.Every{Interval: durationpb.New(time.Second)}}}}

func (l *lab) newStory(t *testing.T, w *worker) *story {
	t.Helper()
	name := strings.NewReplacer("/", "-", "_", "-").Replace(strings.ToLower(t.Name()))
	_, name, _ = strings.Cut(name, "-")
	s := &story{job: fmt.Sprintf("tick-%s-%.50s", w.name, name)}
	j := l.script(s.job, w, tell)
	j.Triggers = eachSecond
	l.put(t, j)
	return s
}

// account holds the job's trigger, waits until all its runs have ended, and
// compares.
func (l *lab) account(t *testing.T, s *story) {
	t.Helper()
	l.hold(t, s.job)
	s.runs = l.awaitList(t, s.job, "all have ended", ended)
	slices.SortFunc(s.runs, func(a, b *schedv1.Run) int { return a.GetNominalTime().AsTime().Compare(b.GetNominalTime().AsTime()) })
	s.effects = l.effects(t, s.job)

	known := map[string]*schedv1.Run{}
	for i, r := range s.runs {
		known[r.GetId()] = r
		if r.GetPhase() != schedv1.Phase_PHASE_SUCCEEDED {
			t.Errorf("job %s: the run of %v is %v (%s): %v", s.job, r.GetNominalTime().AsTime(), r.GetPhase(), r.GetReason(), r)
		}
		if i > 0 && r.GetNominalTime().AsTime().Sub(s.runs[i-1].GetNominalTime().AsTime()) != time.Second {
			t.Errorf("job %s: there is no second between %v and %v", s.job, s.runs[i-1].GetNominalTime().AsTime(), r.GetNominalTime().AsTime())
		}
	}
	s.startedOnce(t, known)
	l.ask(t, "verify the ledger of "+s.job, func(ctx context.Context, p *primary) error {
		resp, err := p.jobs.VerifyLedger(ctx, &schedv1.VerifyLedgerRequest{Name: s.job})
		if err != nil {
			return err
		}
		n := int64(len(s.runs))
		for _, v := range resp.GetTriggers() {
			if !resp.GetOk() || v.GetRan() != n || v.GetMissed() != 0 || v.GetSkipped() > v.GetNominal()-n || len(v.GetDifferences()) > 0 {
				t.Errorf("job %s: there are %d runs, and the ledger says %v", s.job, n, resp)
			}
		}
		return nil
	})
}

// hold holds the triggers of a job.
func (l *lab) hold(t *testing.T, job string) {
	t.Helper()
	l.ask(t, "pause job "+job, func(ctx context.Context, p *primary) error {
		_, err := p.jobs.PauseJob(ctx, &schedv1.PauseJobRequest{Name: job, Note: "the test looks at what was done"})
		return err
	})
}

// startedOnce compares what processes wrote down with the runs: each run that
// succeeded was started once, and nothing else was.
func (s *story) startedOnce(t *testing.T, known map[string]*schedv1.Run) {
	t.Helper()
	times := map[string]int{}
	for key, e := range s.effects {
		r := known[e.run]
		if r == nil || e.attempt > uint64(len(r.GetAttempts())) {
			t.Errorf("job %s: a process ran as %s, and there is no such attempt", s.job, key)
			continue
		}
		if a := r.GetAttempts()[e.attempt-1]; a.GetFence() != e.fence || !r.GetNominalTime().AsTime().Equal(e.nominal) {
			t.Errorf("job %s: a process ran as %+v, and its attempt is %v", s.job, e, a)
		}
		times[e.run]++
	}
	for id, r := range known {
		if times[id] != 1 {
			t.Errorf("job %s: %d processes ran for the run of %v, want one: %v", s.job, times[id], r.GetNominalTime().AsTime(), r)
		}
	}
}

// late returns how late decisions were, and processes ran, of what was due after
// since, or just before: the worst of each.
func (s *story) late(since time.Time) (decided, ran time.Duration) {
	for _, r := range s.runs {
		if nominal := r.GetNominalTime().AsTime(); nominal.After(since.Add(-time.Second)) { // with what was under way
			decided = max(decided, r.GetCreatedTime().AsTime().Sub(nominal))
			for _, a := range r.GetAttempts() {
				ran = max(ran, s.effects[fmt.Sprint(r.GetId(), "/", a.GetNumber())].at.Sub(nominal))
			}
		}
	}
	return decided, ran
}

// counting is a process that counts until it is told to stop, and so makes a log
// that shows what it lacks. If nobody is there to tell it, it stops after a while.
const counting = tell + `i=0; until [ -e "$LAB_FILE.$SCHEDD_RUN_ID" ] || [ $i -gt 6000 ]; do echo "line $i"; i=$((i+1)); sleep 0.1; done; echo "end $i"`

// count starts a process on a worker that counts, and waits until it does.
func (l *lab) count(t *testing.T, w *worker) *schedv1.Run {
	t.Helper()
	name := "count-" + w.name
	l.put(t, l.script(name, w, counting))
	return l.awaitRunning(t, l.run(t, name, fmt.Sprint(time.Now().UnixNano())))
}

// whole stops a run that counts, and reads its log from each of the primaries:
// nothing has disturbed it, and nothing of it is missing.
func (l *lab) whole(t *testing.T, r *schedv1.Run, from []*primary) {
	t.Helper()
	if err := os.WriteFile(l.file+"."+r.GetId(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r = l.awaitRun(t, r, "has ended", over)
	if r.GetPhase() != schedv1.Phase_PHASE_SUCCEEDED || len(r.GetAttempts()) != 1 {
		t.Errorf("a run was disturbed: %v", r)
	}
	for _, p := range from {
		log := string(p.readLog(t, r.GetId()))
		if n := last(r).GetLogBytes(); n != int64(len(log)) {
			t.Errorf("%s has a log of %d bytes, and the attempt says %d", p.id, len(log), n)
		}
		if wrong := miscounted(log); wrong != "" {
			t.Errorf("%s has a log that is not whole: %s", p.id, wrong)
		}
	}
}

// miscounted says what is wrong with a log of counting.
func miscounted(log string) string {
	lines := strings.Split(strings.TrimSuffix(log, "\n"), "\n")
	for i, line := range lines[:len(lines)-1] {
		if line != fmt.Sprint("line ", i) {
			return fmt.Sprintf("line %d is %q", i, line)
		}
	}
	if end := lines[len(lines)-1]; end != fmt.Sprint("end ", len(lines)-1) {
		return fmt.Sprintf("after %d lines comes %q", len(lines)-1, end)
	}
	return ""
}
