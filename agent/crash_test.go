package agent_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/schedd/schedd/agent"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	"github.com/schedd/schedd/agent/spool"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// The agent dies between the record of an attempt and its start. Nobody can tell
// whether the process was started, so it counts as started.
func TestCrashBeforeTheStart(t *testing.T) {
	story(t, polite, map[string]fakerunner.Behaviour{"r1": {Duration: time.Second}}, func(w *world) {
		w.start()
		var image string
		w.onStart = func(string) { image = w.image() }
		w.gateway.last().launch(launchOf("r1"))
		w.wait(time.Minute)
		w.startsOf("r1", 1)

		w.startIn(image, w.boot)
		v := w.gateway.last()
		v.launch(launchOf("r1"))
		w.wait(time.Minute)
		w.outcomeOf("r1", agentv1.Outcome_OUTCOME_INTERRUPTED, "the agent stopped while it was being started")
		w.startsOf("r1", 1)
	})
}

// The agent dies while a child of it runs, or the host does. The next one ends what
// is left of it, brings the log up to there, and says that it was interrupted.
func TestCrashOfAParent(t *testing.T) {
	output := text(30_000)
	script := map[string]fakerunner.Behaviour{"r1": {Duration: -1, Output: []fakerunner.Chunk{{Data: output}}}}
	for boot, reason := range map[string]string{"boot-1": "the agent stopped while it ran", "boot-2": "the host rebooted"} {
		t.Run(reason, func(t *testing.T) {
			story(t, manners{ackResults: true}, script, func(w *world) {
				if boot == w.boot {
					w.bare()
				}
				w.start()
				w.gateway.last().launch(launchOf("r1"))
				w.wait(5 * time.Second)
				image := w.image()
				w.gateway.behave(func(m *manners) { m.ackLogs = true })
				w.startIn(image, boot)
				w.wait(time.Minute)
				r := w.outcomeOf("r1", agentv1.Outcome_OUTCOME_INTERRUPTED, reason)
				if r.GetLogBytes() != 30_000 || r.GetStartedTime() == nil {
					t.Errorf("result: %v", r)
				}
				if got := w.gateway.log("r1"); got != string(output) {
					t.Errorf("%d of %d bytes of the log arrived", len(got), len(output))
				}
				if running := w.host.Running(); (len(running) == 0) != (boot == w.boot) {
					t.Errorf("%q run after a start in %s", running, boot)
				}
				if left, _ := filepath.Glob(filepath.Join(image, "spool", "*")); len(left) > 0 {
					t.Errorf("left in the spool: %q", left)
				}
			})
		})
	}
}

// The agent dies before the leader has the result, or the log. The next one
// tells it as it was, and brings the rest of the log.
func TestCrashAfterTheEnd(t *testing.T) {
	output := text(30_000)
	script := map[string]fakerunner.Behaviour{"r1": {Duration: time.Second, Output: []fakerunner.Chunk{{Data: output}}}}
	for _, m := range []manners{{}, {ackResults: true}} {
		story(t, m, script, func(w *world) {
			w.start()
			w.gateway.last().launch(launchOf("r1"))
			w.wait(5 * time.Second)
			w.gateway.behave(func(m *manners) { *m = polite })
			image := w.image()
			w.startIn(image, w.boot)
			w.wait(time.Minute)
			w.says(w.gateway.last(), "inventory r1/1=ENDED", "result r1/1 SUCCEEDED")
			if got := w.gateway.log("r1"); got != string(output) {
				t.Errorf("%d of %d bytes of the log arrived", len(got), len(output))
			}
		})
	}
}

// The agent dies when all is told and acknowledged: nothing is told again, and
// the attempt is still not started again.
func TestCrashAfterTheAck(t *testing.T) {
	story(t, polite, map[string]fakerunner.Behaviour{"r1": {Duration: time.Second}}, func(w *world) {
		w.start()
		w.gateway.last().launch(launchOf("r1"))
		w.wait(5 * time.Second)
		w.startIn(w.image(), w.boot)
		w.gateway.last().launch(launchOf("r1"))
		w.wait(time.Second)
		w.says(w.gateway.last(), "inventory")
		w.startsOf("r1", 1)
	})
}

// The agent dies while an attempt goes on that has printed nothing, in a file that was
// another one's, and an agent of a former version is put in its place. That one knows of no such
// files, and finds the log by its name.
func TestCrashBeforeAFormerVersion(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no file is used again here")
	}
	script := map[string]fakerunner.Behaviour{"quiet": {Duration: time.Second}, "r1": forever}
	story(t, polite, script, func(w *world) {
		w.start()
		w.gateway.last().launch(launchOf("quiet"))
		w.wait(time.Minute)
		spares := filepath.Join(w.dir, "spool-spares", "*")
		if files, err := filepath.Glob(spares); len(files) != 1 || err != nil {
			t.Fatalf("of the first one is left %q, %v; want its file", files, err)
		}
		w.gateway.last().launch(launchOf("r1"))
		w.wait(5 * time.Second)
		if files, err := filepath.Glob(spares); len(files) != 0 || err != nil {
			t.Errorf("only the journal says whose is %q, %v", files, err)
		}
		logs, err := spool.Open(filepath.Join(w.image(), "spool"), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if _, found := logs.Get(spool.Key{Run: "r1", Attempt: 1}); !found {
			t.Error("its log is not found by its name")
		}
	})
}

// Two agents in one data directory would be one worker twice.
func TestDataDirectoryIsLocked(t *testing.T) {
	story(t, polite, nil, func(w *world) {
		w.start()
		c := w.config()
		err := agent.Run(t.Context(), c, agent.Seams{Runner: w.host, Dialer: w.gateway.dial})
		if !errors.Is(err, agent.ErrInUse) || !strings.Contains(err.Error(), "--data-dir") {
			t.Errorf("a second agent was told %v", err)
		}
	})
}

// What is damaged in a data directory is never replaced by something new, which
// would make this another worker.
func TestDamagedDataDirectory(t *testing.T) {
	for name, test := range map[string]struct{ file, content, want string }{
		"key":    {"identity.key", "no key", "restore it"},
		"starts": {"starts", "many", "greater than all before"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, test.file), []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			c := agent.DefaultConfig()
			c.DataDir = dir
			err := agent.Run(t.Context(), c, agent.Seams{Log: slog.New(slog.DiscardHandler)})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the operator is told %v", err)
			}
			if got, _ := os.ReadFile(filepath.Join(dir, test.file)); string(got) != test.content {
				t.Errorf("the file was changed to %q", got)
			}
		})
	}
}

// A primary that knows less of a log than was acknowledged gets no zeros for what
// is gone here by now: another one has these bytes. The worker waits until one
// that knows them answers, and goes on from there.
func TestLostOutputIsNotMadeUp(t *testing.T) {
	first, second := text(50_000), []byte("and then there was more\n")
	script := map[string]fakerunner.Behaviour{"r1": {Duration: 30 * time.Minute, Output: []fakerunner.Chunk{
		{Data: first}, {After: 20 * time.Minute, Data: second},
	}}}
	story(t, polite, script, func(w *world) {
		w.start()
		w.gateway.last().launch(launchOf("r1"))
		w.wait(time.Minute)
		if got := w.gateway.log("r1"); got != string(first) {
			t.Fatalf("%d bytes arrived, want %d", len(got), len(first))
		}
		logs, err := filepath.Glob(filepath.Join(w.dir, "spool", "r1.1.*.log"))
		if err != nil || len(logs) != 1 {
			t.Fatalf("the spool has %v: %v", logs, err)
		}
		if err := os.Truncate(logs[0], 0); err != nil {
			t.Fatal(err)
		}
		w.gateway.setLog("r1", first[:100]) // as another primary, which has not caught up
		w.gateway.last().hangUp()
		w.wait(10 * time.Minute)
		if got := w.gateway.log("r1"); got != string(first[:100]) {
			t.Errorf("the log is %d bytes, of which %d are zeros; want the worker to wait", len(got), strings.Count(got, "\x00"))
		}

		w.gateway.setLog("r1", first)
		w.wait(2 * time.Minute)
		w.wait(20 * time.Minute)
		got := w.gateway.log("r1")
		if !strings.HasPrefix(got, string(first)+"\n[schedd: the output was truncated") || !strings.HasSuffix(got, string(second)) || strings.Contains(got, "\x00") {
			t.Errorf("the log is %d bytes and ends with %.200q", len(got), got[min(len(got), len(first)):])
		}
		if left, err := os.ReadDir(filepath.Join(w.dir, "spool")); err != nil || len(left) != 0 {
			t.Errorf("the spool has %v, %v; want nothing left", left, err)
		}
	})
}
