package remote

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// served returns a runner that nobody has to connect to.
func served(t *testing.T, guest bool) *service {
	t.Helper()
	fake := fakerunner.New(func(runner.Spec) fakerunner.Behaviour { return fakerunner.Behaviour{} })
	t.Cleanup(fake.Close)
	log := slog.New(slog.DiscardHandler)
	b, _, _, err := openBook(t.TempDir(), "boot", log)
	if err != nil {
		t.Fatal(err)
	}
	s := &service{keeper: newKeeper(log, fake, b), guest: guest}
	if guest {
		s.most = maxKept
	}
	t.Cleanup(func() { s.rest(); _ = b.journal.Close() })
	return s
}

func marks(run, worker string) [][]byte {
	env := []string{"A=" + strings.Repeat("x", 1000), "SCHEDD_RUN_ID=" + run, "SCHEDD_ATTEMPT=1"}
	if worker != "" {
		env = append(env, "SCHEDD_WORKER="+worker)
	}
	return showEnv(env)
}

// What a runner keeps of an attempt has a bound, and for an agent of another user also
// what is started and how many there are.
func TestBoundsOfAStart(t *testing.T) {
	long, large := strings.Repeat("x", 257), strings.Repeat("x", maxTask)
	for name, test := range map[string]struct {
		start   *runnerv1.StartRequest
		own     string // what the agent of the runner's own user is told; empty: it is started
		another string // likewise, that of another user
	}{
		"ordinary":    {&runnerv1.StartRequest{Id: "a/1", Env: marks("a", "w")}, "", ""},
		"a long id":   {&runnerv1.StartRequest{Id: long}, "id has 257 bytes", "id has 257 bytes"},
		"a long mark": {&runnerv1.StartRequest{Id: "a/1", Env: marks(long, "w")}, "SCHEDD_RUN_ID", "SCHEDD_RUN_ID"},
		"large":       {&runnerv1.StartRequest{Id: "a/1", Script: large}, "", "the task has"},
	} {
		for guest, want := range map[bool]string{false: test.own, true: test.another} {
			resp, err := served(t, guest).Start(t.Context(), test.start)
			if err != nil || (want == "") != (resp.GetError() == "") || !strings.Contains(resp.GetError(), want) {
				t.Errorf("%s, of another user %v: %.200v, %v; want %q", name, guest, resp, err, want)
			}
		}
	}
	for _, guest := range []bool{false, true} {
		s := served(t, guest)
		for i := range maxKept {
			s.attempts[fmt.Sprint(i)] = &kept{id: fmt.Sprint(i), ready: closed(), exit: &runner.Exit{}}
		}
		again, err := s.Start(t.Context(), &runnerv1.StartRequest{Id: "7"})
		if err != nil || again.GetError() != "" {
			t.Errorf("one that is kept, of another user %v: %v, %v", guest, again, err)
		}
		more, err := s.Start(t.Context(), &runnerv1.StartRequest{Id: "more"})
		if err != nil || strings.Contains(more.GetError(), "keeps no more") != guest {
			t.Errorf("one more, of another user %v: %v, %v", guest, more, err)
		}
	}
}

// Processes are ended only by all that tells whose they are.
func TestStraysNeedAllMarks(t *testing.T) {
	s := served(t, true)
	for worker, want := range map[string]string{"w": "", "": "SCHEDD_WORKER"} {
		resp, err := s.EndStrays(t.Context(), &runnerv1.EndStraysRequest{Id: "a/1", Env: marks("a", worker)})
		if err != nil || (want == "") != (resp.GetError() == "") || !strings.Contains(resp.GetError(), want) {
			t.Errorf("of worker %q: %v, %v; want %q", worker, resp, err, want)
		}
	}
}
