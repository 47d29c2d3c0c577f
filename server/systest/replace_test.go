package systest

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// All three primaries are replaced by empty ones, each under its old name, one after
// the other and as quickly as the guide allows. No log is lost.
func TestAllReplacedInTurn(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		w.startWorker("shop-1", nil, 10)
		w.awaitOnline()
		w.does("j", talker(2*time.Second, time.Second))
		w.define(job("j", every(5*time.Second), overlapAllowed))
		w.wait(5 * time.Minute)
		w.deleteJob("j")
		w.settle(time.Hour)
		runs := w.runsOf("j")
		if len(runs) < 60 {
			t.Fatalf("only %d runs to keep logs of", len(runs))
		}
		for _, m := range w.group {
			w.replace(m)
		}
		w.checkEverywhere()
	})
}

// A primary is replaced by an empty one, and most runs have left memory by then. It has its
// own copy of the output of each of them before it is said to lack none.
func TestOlderOutputIsCopied(t *testing.T) {
	story(t, func(w *world) {
		w.settings = shortMemory
		w.startGroup(3)
		w.startWorker("shop-1", nil, 10)
		w.awaitOnline()
		w.does("j", talker(2*time.Second, time.Second))
		w.define(job("j", every(10*time.Second)))
		w.wait(10 * time.Minute)
		w.settle(time.Hour)
		w.wait(30 * time.Minute)
		m := w.group[2]
		w.replace(m)
		logs := map[string]bool{}
		for _, name := range must[[]string](w)(filepath.Glob(filepath.Join(m.dir, "runlogs", "*", "*.log*"))) {
			id, _, _ := strings.Cut(filepath.Base(name), ".")
			logs[id] = true
		}
		runs := w.runsOf("j")
		if len(runs) < 50 || len(logs) != len(runs) {
			t.Errorf("%s has the output of %d runs of %d", m.id, len(logs), len(runs))
		}
		w.checkEverywhere()
	})
}

// replace removes a primary from the group, has it join again with an empty disk, and
// waits until it votes and nobody lacks a log, as the guide says.
func (w *world) replace(m *member) {
	w.Helper()
	w.await("the removal of "+m.id, time.Minute, func() bool {
		_, err := w.primary.clusters.RemovePrimary(w.Context(), &schedv1.RemovePrimaryRequest{Id: m.id})
		return err == nil
	})
	m.leave()
	m.wipe()
	m.start()
	w.await("the vote of "+m.id+", and copies of all logs", 2*time.Minute, func() bool {
		r, err := w.primary.clusters.GetStatus(w.Context(), &schedv1.GetStatusRequest{})
		all := r.GetStatus().GetPrimaries()
		lacking := slices.ContainsFunc(all, func(p *schedv1.Primary) bool {
			return !p.GetVoter() || p.LogsMissing == nil || p.GetLogsMissing() > 0
		})
		return err == nil && len(all) == len(w.group) && !lacking
	})
}
