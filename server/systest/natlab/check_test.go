//go:build e2e && linux

package natlab_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// tell is a line of shell that says who runs and when: once for each attempt that
// was started, whatever becomes of it.
const tell = `echo "$SCHEDD_RUN_ID $SCHEDD_ATTEMPT $SCHEDD_FENCE $SCHEDD_SCHEDULED_AT $SCHEDD_JOB $(date +%s.%N)" >>"$LAB_FILE"` + "\n"

// effects returns what the attempts of a job told, by run and attempt. Nothing
// may be told twice.
func (l *lab) effects(t *testing.T, job string) map[string]effect {
	t.Helper()
	text, err := os.ReadFile(l.file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	all, faults := readEffects(string(text), job)
	complain(t, job, faults)
	return all
}

func complain(t *testing.T, job string, faults []error) {
	t.Helper()
	for _, err := range faults {
		t.Errorf("job %s: %v", job, err)
	}
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

// eachSecond is when jobs tick.
var eachSecond = []*schedv1.Trigger{{When: &schedv1.Trigger_Every{Every: &schedv1.Every{Interval: durationpb.New(time.Second)}}}}

func (l *lab) newStory(t *testing.T, w *worker) *story {
	t.Helper()
	name := strings.NewReplacer("/", "-", "_", "-").Replace(strings.ToLower(t.Name()))
	_, name, _ = strings.Cut(name, "-")
	s := &story{job: fmt.Sprintf("tick-%s-%.50s", w.name, name)}
	j := l.script(s.job, w, tell)
	j.Triggers = eachSecond
	// Where the machine stands still for a minute, only the latest would count.
	j.Policy.CatchUp = schedv1.CatchUp_CATCH_UP_ALL
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

	complain(t, s.job, s.gaps())
	complain(t, s.job, s.mismatches())
	for _, p := range l.primaries {
		if !p.running() {
			continue
		}
		askOne(t, "verify the ledger of "+s.job, []*primary{p}, func(ctx context.Context, p *primary) error {
			resp, err := p.jobs.VerifyLedger(ctx, &schedv1.VerifyLedgerRequest{Name: s.job})
			if err == nil {
				complain(t, s.job+" at "+p.id, s.mistakes(resp))
			}
			return err
		})
	}
}

// hold holds the triggers of a job.
func (l *lab) hold(t *testing.T, job string) {
	t.Helper()
	l.ask(t, "pause job "+job, func(ctx context.Context, p *primary) error {
		_, err := p.jobs.PauseJob(ctx, &schedv1.PauseJobRequest{Name: job, Note: "the test looks at what was done"})
		return err
	})
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
