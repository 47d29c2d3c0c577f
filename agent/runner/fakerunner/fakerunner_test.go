package fakerunner_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
)

// An attempt takes as long as it is told to, in virtual time, and writes what it
// is told to when it is told to.
func TestLife(t *testing.T) {
	type ask struct {
		after, grace time.Duration
	}
	chunks := []fakerunner.Chunk{{Data: []byte("a")}, {time.Minute, []byte("b")}, {time.Minute, []byte("c")}}
	for _, tc := range []struct {
		name           string
		does           fakerunner.Behaviour
		timeout, grace time.Duration
		kills          []ask
		want           runner.Exit
		took           time.Duration
		output         string
	}{
		{
			name: "alone", does: fakerunner.Behaviour{Duration: time.Hour, Output: chunks, ExitCode: 3, CPUTime: time.Second, MaxRSS: 1 << 20, Leftover: 2},
			want: runner.Exit{Code: 3, CPUTime: time.Second, MaxRSS: 1 << 20, Leftover: 2}, took: time.Hour, output: "abc",
		},
		{name: "no time at all", does: fakerunner.Behaviour{Output: chunks[:1]}, output: "a"},
		{name: "output due at the end", does: fakerunner.Behaviour{Duration: 2 * time.Minute, Output: chunks}, took: 2 * time.Minute, output: "abc"},
		{name: "output due after the end", does: fakerunner.Behaviour{Duration: 90 * time.Second, Output: chunks}, took: 90 * time.Second, output: "ab"},
		{
			name: "timeout", does: fakerunner.Behaviour{Duration: time.Hour, Output: chunks}, timeout: 90 * time.Second, grace: time.Second,
			want: runner.Exit{Code: 143, Signal: "SIGTERM", TimedOut: true, Reason: "timed out after 1m30s, ended after SIGTERM"}, took: 90 * time.Second, output: "ab",
		},
		{
			name: "timeout of one that ignores SIGTERM, but not for ever", does: fakerunner.Behaviour{Duration: -1, Output: chunks, IgnoreTerm: true}, timeout: 90 * time.Second, grace: time.Hour,
			want: runner.Exit{Code: 137, Signal: "SIGKILL", TimedOut: true, Reason: "timed out after 1m30s, did not end after SIGTERM and was ended with SIGKILL"},
			took: 90*time.Second + time.Hour, output: "abc",
		},
		{
			name: "ends by itself in the grace", does: fakerunner.Behaviour{Duration: time.Hour, IgnoreTerm: true, ExitCode: 5}, kills: []ask{{time.Minute, 2 * time.Hour}},
			want: runner.Exit{Code: 5, Killed: true, Reason: "killed on request, ended after SIGTERM"}, took: time.Hour,
		},
		{
			name: "killed at once", does: fakerunner.Behaviour{Duration: -1}, kills: []ask{{time.Minute, 0}},
			want: runner.Exit{Code: 137, Signal: "SIGKILL", Killed: true, Reason: "killed on request, ended with SIGKILL"}, took: time.Minute,
		},
		{
			name: "the shorter grace wins", does: fakerunner.Behaviour{Duration: -1, IgnoreTerm: true},
			kills: []ask{{time.Minute, time.Hour}, {time.Minute, time.Second}, {0, 2 * time.Hour}},
			want:  runner.Exit{Code: 137, Signal: "SIGKILL", Killed: true, Reason: "killed on request, did not end after SIGTERM and was ended with SIGKILL"},
			took:  2*time.Minute + time.Second,
		},
		{
			name: "killed before the timeout", does: fakerunner.Behaviour{Duration: -1, IgnoreTerm: true}, timeout: time.Minute + time.Second, kills: []ask{{time.Minute, time.Hour}},
			want: runner.Exit{Code: 137, Signal: "SIGKILL", Killed: true, Reason: "killed on request, did not end after SIGTERM and was ended with SIGKILL"},
			took: time.Minute + time.Hour,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakerunner.New(func(runner.Spec) fakerunner.Behaviour { return tc.does })
				s := runner.Spec{ID: "run/1", Output: file(t), Timeout: tc.timeout, KillGrace: tc.grace}
				p, err := f.Start(s)
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				for _, k := range tc.kills {
					time.Sleep(k.after)
					p.Kill(k.grace)
				}
				<-p.Done()
				p.Kill(0) // too late to matter
				tc.want.Started, tc.want.Finished = began, began.Add(tc.took)
				if d := cmp.Diff(tc.want, p.Exit()); d != "" {
					t.Error(d)
				}
				if b, _ := os.ReadFile(s.Output); string(b) != tc.output {
					t.Errorf("output %q, want %q", b, tc.output)
				}
			})
		})
	}
}

func file(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A test can ask what was started, how often, and what still runs.
func TestBooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("no such user")
		f := fakerunner.New(func(s runner.Spec) fakerunner.Behaviour {
			if s.User == "nobody" {
				return fakerunner.Behaviour{StartError: broken}
			}
			return fakerunner.Behaviour{Duration: time.Hour}
		})
		env := []string{"SCHEDD_RUN_ID=a", "SCHEDD_ATTEMPT=1"}
		a, err := f.Start(runner.Spec{ID: "a/1", Env: env})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Start(runner.Spec{ID: "a/1"}); !errors.Is(err, runner.ErrRunning) {
			t.Errorf("twice: %v", err)
		}
		if _, err := f.Start(runner.Spec{ID: "b/1", User: "nobody"}); !errors.Is(err, broken) {
			t.Errorf("start error: %v", err)
		}
		if _, err := f.Start(runner.Spec{ID: "c/1", Output: "/no/such/file"}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("no output: %v", err)
		}
		b, err := f.Start(runner.Spec{ID: "b/2"})
		if err != nil {
			t.Fatal(err)
		}
		if a.PID() == b.PID() || a.Started().IsZero() || a.Exit() != (runner.Exit{}) {
			t.Errorf("pids %d and %d, started %v, exit %+v", a.PID(), b.PID(), a.Started(), a.Exit())
		}
		if d := cmp.Diff([]string{"a/1", "b/2"}, f.Running()); d != "" {
			t.Error(d)
		}
		if f.Starts("a/1") != 2 || f.Starts("b/1") != 1 || f.Starts("z/1") != 0 || len(f.Specs()) != 5 {
			t.Errorf("starts %v", f.Specs())
		}

		// The agent's next life doesn't have the Process of the first.
		if n, err := f.EndStrays("a/1", nil); n != 0 || err == nil {
			t.Errorf("without marks it ended %d, %v", n, err)
		}
		if n, err := f.EndStrays("a/1", env); n != 1 || err != nil || a.Exit().Signal != "SIGKILL" {
			t.Errorf("ended %d, %v: %+v", n, err, a.Exit())
		}
		if n, _ := f.EndStrays("a/1", env); n != 0 {
			t.Errorf("ended %d once more", n)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if len(f.Running()) != 0 || b.Exit().Signal != "" {
			t.Errorf("running %v, exit %+v", f.Running(), b.Exit())
		}
		if _, err := f.Start(runner.Spec{ID: "b/2"}); err != nil {
			t.Error(err)
		}
		f.Close()
		f.Wait()
	})
}

// A lease ends an attempt when it is not renewed in time, and what is over stays so.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakerunner.New(func(runner.Spec) fakerunner.Behaviour { return fakerunner.Behaviour{Duration: -1, IgnoreTerm: true} })
		began := time.Now()
		up, _ := f.Uptime()
		s := runner.Spec{ID: "run/1", Output: file(t), KillGrace: 5 * time.Second, LeaseEnd: up + time.Minute}
		p, err := f.Start(s)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Second)
		f.Renew(map[string]time.Duration{"run/1": up + 2*time.Minute})
		time.Sleep(71 * time.Second)
		f.Renew(map[string]time.Duration{"run/1": up + time.Hour})
		<-p.Done()
		if e := p.Exit(); !e.LeaseExpired || e.Killed || e.Signal != "SIGKILL" || e.Finished.Sub(began) != 2*time.Minute+5*time.Second {
			t.Errorf("exit %+v", e)
		}
		if _, err := f.Start(s); err == nil {
			t.Error("it was started with a lease that was over")
		}
		if l := f.Lives(); len(l) != 1 || l[0].Spec.ID != "run/1" || !l[0].From.Equal(began) || !l[0].To.Equal(p.Exit().Finished) {
			t.Errorf("lives %+v", l)
		}
	})
}

// A host that lost its power has nothing that runs, and no runner that knows what did.
func TestPowerOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakerunner.New(func(runner.Spec) fakerunner.Behaviour {
			return fakerunner.Behaviour{Duration: time.Hour, IgnoreTerm: true}
		})
		for _, id := range []string{"a/1", "b/1"} {
			if _, err := f.Start(runner.Spec{ID: id, Output: file(t)}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Minute)
		}
		if len(f.Running()) != 1 || len(f.Ended()) != 1 {
			t.Fatalf("%q run, %q have ended", f.Running(), f.Ended())
		}
		f.PowerOff()
		if known := f.Known(); len(known) > 0 {
			t.Errorf("it knows %v", known)
		}
		time.Sleep(time.Minute)
		if up, ok := f.Uptime(); up != time.Minute || !ok {
			t.Errorf("it is up for %v (%v)", up, ok)
		}
	})
}

// What runs stands still with its host, and then goes on where it was. Its lease ends
// meanwhile, and the grace that follows it.
func TestHalt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		does := map[string]fakerunner.Behaviour{
			"works":  {Duration: time.Minute, ExitCode: 3, Output: []fakerunner.Chunk{{30 * time.Second, []byte("a")}, {20 * time.Second, []byte("b")}}},
			"slow":   {Duration: -1},
			"leased": {Duration: -1, IgnoreTerm: true},
			"graced": {Duration: -1, IgnoreTerm: true},
			"killed": {Duration: -1, IgnoreTerm: true},
			"young":  {Duration: time.Minute},
		}
		f := fakerunner.New(func(s runner.Spec) fakerunner.Behaviour { return does[s.ID] })
		defer f.Close()
		up, _ := f.Uptime()
		began, procs := time.Now(), map[string]runner.Process{}
		start := func(s runner.Spec) {
			p, err := f.Start(s)
			if err != nil {
				t.Fatal(err)
			}
			procs[s.ID] = p
		}
		out := file(t)
		start(runner.Spec{ID: "works", Output: out})
		start(runner.Spec{ID: "slow", Timeout: 2 * time.Minute})
		start(runner.Spec{ID: "leased", LeaseEnd: up + 2*time.Minute, KillGrace: time.Minute})
		start(runner.Spec{ID: "graced", LeaseEnd: up + 30*time.Second, KillGrace: time.Minute})
		start(runner.Spec{ID: "killed"})
		time.Sleep(40 * time.Second)
		f.Halt()
		start(runner.Spec{ID: "young"})
		time.Sleep(10 * time.Minute)
		if got, err := os.ReadFile(out); string(got) != "a" || err != nil {
			t.Errorf("while it stands still it has said %q: %v", got, err)
		}
		procs["killed"].Kill(0)
		synctest.Wait()
		f.GoOn()
		for id, want := range map[string]time.Duration{
			"killed": 10*time.Minute + 40*time.Second, "leased": 10*time.Minute + 40*time.Second,
			"graced": 10*time.Minute + 40*time.Second,
			"works":  11 * time.Minute, "young": 11*time.Minute + 40*time.Second, "slow": 12 * time.Minute,
		} {
			<-procs[id].Done()
			if took := procs[id].Exit().Finished.Sub(began); took != want {
				t.Errorf("%s has ended after %v, want %v: %+v", id, took, want, procs[id].Exit())
			}
		}
		if e := procs["leased"].Exit(); !e.LeaseExpired || e.Signal != "SIGKILL" || procs["works"].Exit().Code != 3 || !procs["slow"].Exit().TimedOut {
			t.Errorf("they ended with %+v, %+v and %+v", e, procs["works"].Exit(), procs["slow"].Exit())
		}
		if got, err := os.ReadFile(out); string(got) != "ab" || err != nil {
			t.Errorf("it has said %q: %v", got, err)
		}
		want := []fakerunner.Span{{From: began.Add(40 * time.Second), To: began.Add(10*time.Minute + 40*time.Second)}}
		for _, l := range f.Lives() {
			if d := cmp.Diff(want, l.Still); d != "" {
				t.Errorf("%s stood still (-want +got):\n%s", l.Spec.ID, d)
			}
		}
	})
}
