package verdict_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/schedd/schedd/server/torture/verdict"
)

var (
	someRun     = verdict.Run{ID: "r-1", Job: "tick", Nominal: time.Date(2026, 3, 29, 1, 2, 3, 0, time.UTC)}
	someAttempt = verdict.Attempt{Number: 2, Fence: 77, Outcome: verdict.Succeeded}
)

// What the script prints is what is expected of it, byte for byte, and what it
// writes down can be read.
func TestScriptPrintsWhatIsExpected(t *testing.T) {
	for name, test := range map[string]struct {
		work verdict.Work
		code int
	}{
		"one line":     {verdict.Work{Lines: 1}, 0},
		"no line":      {verdict.Work{}, 0},
		"long lines":   {verdict.Work{Lines: 40, Padding: 500}, 0},
		"pauses":       {verdict.Work{Lines: 1, Pause: time.Second}, 0},
		"fails once":   {verdict.Work{Lines: 1, Fails: 1}, 0},
		"fails thrice": {verdict.Work{Lines: 1, Fails: 3}, verdict.ExitAgain},
	} {
		for _, told := range []bool{true, false} {
			dir := t.TempDir()
			cmd := exec.CommandContext(t.Context(), "/bin/sh", "-e", "-c", test.work.Script())
			cmd.Env = []string{
				"PATH=" + os.Getenv("PATH"), "SCHEDD_RUN_ID=r-1", "SCHEDD_ATTEMPT=2", "SCHEDD_FENCE=77", "SCHEDD_JOB=tick",
				"SCHEDD_SCHEDULED_AT=" + someRun.Nominal.Format(time.RFC3339Nano), "SCHEDD_WORKER=w-9",
			}
			if told {
				cmd.Env = append(cmd.Env, verdict.EffectsVariable+"="+dir)
			}
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			_ = cmd.Run() // how it ended is looked at next
			if code := cmd.ProcessState.ExitCode(); code != test.code {
				t.Errorf("%s: exit code %d, want %d: %s", name, code, test.code, &out)
			}
			if problem := test.work.CheckLog(someRun, someAttempt, out.Bytes(), true); problem != "" {
				t.Errorf("%s: %s:\n%s", name, problem, &out)
			}
			text, _ := os.ReadFile(filepath.Join(dir, "w-9")) // there is none if it was not told
			effects, bad := verdict.ReadEffects("w-9", string(text))
			if !told {
				if len(text) > 0 {
					t.Errorf("%s: it wrote down what it was not asked for: %q", name, text)
				}
				continue
			}
			if len(effects) != 2 || len(bad) > 0 || effects[0].Stage != verdict.Begin || effects[1].Stage != verdict.End {
				t.Fatalf("%s: effects %+v, unreadable %q", name, effects, bad)
			}
			want := verdict.Effect{Worker: "w-9", Stage: verdict.Begin, Run: "r-1", Attempt: 2, Fence: 77, Nominal: someRun.Nominal, Job: "tick", At: effects[0].At}
			if effects[0] != want || time.Since(want.At) > time.Hour {
				t.Errorf("%s: effect %+v, want %+v", name, effects[0], want)
			}
		}
	}
}

// Of a log that lacks something, or has something that nobody printed, that is
// said; the log of what was cut short may end anywhere.
func TestCheckLogBites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := verdict.Work{Lines: rapid.IntRange(0, 5).Draw(t, "lines"), Padding: rapid.IntRange(0, 9).Draw(t, "padding")}
		printed := w.Printed(someRun, someAttempt)
		cut := printed[:rapid.IntRange(0, len(printed)-1).Draw(t, "cut")]
		spoilt := bytes.Clone(printed)
		spoilt[rapid.IntRange(0, len(printed)-1).Draw(t, "spoilt")] ^= 1
		short := someAttempt
		short.Outcome = verdict.Interrupted
		for _, test := range []struct {
			what     string
			a        verdict.Attempt
			log      []byte
			complete bool
			well     bool
		}{
			{"whole", someAttempt, printed, true, true},
			{"cut", someAttempt, cut, true, false},
			{"spoilt", someAttempt, spoilt, true, false},
			{"longer", someAttempt, append(bytes.Clone(printed), '.'), true, false},
			{"goes on", someAttempt, printed, false, false},
			{"interrupted and whole", short, printed, true, true},
			{"interrupted and cut", short, cut, true, true},
			{"interrupted and spoilt", short, spoilt, true, false},
		} {
			if problem := w.CheckLog(someRun, test.a, test.log, test.complete); (problem == "") != test.well {
				t.Fatalf("%s: %q", test.what, problem)
			}
		}
	})
}

// What is no line of ours is put aside, and does not hide the others.
func TestReadEffects(t *testing.T) {
	good := "begin r-1 2 77 2026-03-29T01:02:03Z tick 2026-03-29T01:02:04Z\n"
	for _, bad := range []string{
		"\n", "begin\n", "start r-1 2 77 2026-03-29T01:02:03Z tick 2026-03-29T01:02:04Z\n",
		"begin r-1 two 77 2026-03-29T01:02:03Z tick 2026-03-29T01:02:04Z\n", "begin r-1 2 -7 2026-03-29T01:02:03Z tick 2026-03-29T01:02:04Z\n",
		"begin r-1 2 77 yesterday tick 2026-03-29T01:02:04Z\n", "begin r-1 2 77 2026-03-29T01:02:03Z tick later\n",
		"begin r-1 2 77 2026-03-29T01:02:03Z tick 2026-03-29T01:02:04Z", // cut short
	} {
		effects, unreadable := verdict.ReadEffects("w", good+bad)
		if len(effects) != 1 || len(unreadable) != 1 {
			t.Errorf("%q: %d effects, unreadable %q", bad, len(effects), unreadable)
		}
	}
}

func FuzzReadEffects(f *testing.F) {
	f.Add("begin r-1 2 77 2026-03-29T01:02:03Z tick 2026-03-29T01:02:04Z\n")
	f.Add("end  \n\n begin")
	f.Fuzz(func(t *testing.T, text string) {
		effects, unreadable := verdict.ReadEffects("w", text)
		lines := 0
		for range bytes.Lines([]byte(text)) {
			lines++
		}
		if len(effects)+len(unreadable) != lines {
			t.Errorf("%d lines, %d effects and %d that are none", lines, len(effects), len(unreadable))
		}
		for _, e := range effects {
			if e.Worker != "w" || e.Stage != verdict.Begin && e.Stage != verdict.End {
				t.Errorf("%+v", e)
			}
		}
	})
}

// runScript runs a script with one more line in its environment, and returns all
// that it printed.
func runScript(t *testing.T, w verdict.Work, env string) (out string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-e", "-c", w.Script())
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "SCHEDD_RUN_ID=r-1", "SCHEDD_ATTEMPT=2", "SCHEDD_FENCE=77", "SCHEDD_JOB=tick",
		"SCHEDD_SCHEDULED_AT=" + someRun.Nominal.Format(time.RFC3339Nano), "SCHEDD_WORKER=w-9", env,
	}
	text, _ := cmd.CombinedOutput() // how it ended is the exit code
	return string(text), cmd.ProcessState.ExitCode()
}

// When what is left of an attempt is killed, a child may go before the shell. That
// is no output of the job.
func TestKilledChildIsNotPrinted(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sleep"), []byte("#!/bin/sh\nkill -9 $$\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	w := verdict.Work{Lines: 3, Pause: time.Second}
	out, code := runScript(t, w, "PATH="+dir+":"+os.Getenv("PATH"))
	short := someAttempt
	short.Outcome = verdict.Interrupted
	if problem := w.CheckLog(someRun, short, []byte(out), true); problem != "" || code == 0 {
		t.Errorf("exit code %d, %s: %q", code, problem, out)
	}
}

// Why an attempt can't write down what it does stands in its log.
func TestEffectsThatCannotBeWritten(t *testing.T) {
	out, code := runScript(t, verdict.Work{}, verdict.EffectsVariable+"="+filepath.Join(t.TempDir(), "none"))
	if code == 0 || !strings.Contains(out, "none/w-9") {
		t.Errorf("exit code %d, %q", code, out)
	}
}
