package systest

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/proto/wire"
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
	w.empty(m)
	w.await("the vote of "+m.id+", and copies of all logs", 2*time.Minute, func() bool {
		r, err := w.primary.clusters.GetStatus(w.Context(), &schedv1.GetStatusRequest{})
		all := r.GetStatus().GetPrimaries()
		lacking := slices.ContainsFunc(all, func(p *schedv1.Primary) bool {
			return !p.GetVoter() || p.LogsMissing == nil || p.GetLogsMissing() > 0
		})
		return err == nil && len(all) == len(w.group) && !lacking
	})
}

// A leader that nobody hears any more is asked to remove a primary, without an answer, and is
// asked again. That it is not there any more nobody has agreed to, so that is no answer: who
// believed it would have one vote that has an empty disk.
func TestRemovalThatNobodyAgreedTo(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		w.wait(time.Minute)
		l, f := w.leader(), w.follower()
		conn := must[*grpc.ClientConn](w)(grpc.NewClient("passthrough:///"+l.host+":"+apiPort, append(wire.DialOptions(),
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(w.own.dial))...))
		defer func() { _ = conn.Close() }()
		remove := func(within time.Duration) error {
			ctx, cancel := context.WithTimeout(w.Context(), within)
			defer cancel()
			_, err := schedv1.NewClusterServiceClient(conn).RemovePrimary(ctx, &schedv1.RemovePrimaryRequest{Id: f.id})
			return err
		}
		if _, err := schedv1.NewClusterServiceClient(conn).GetStatus(w.Context(), &schedv1.GetStatusRequest{}); err != nil {
			t.Fatal(err) // it is connected by now
		}
		for _, m := range w.group {
			if m != l {
				w.net.mute(way{l.host, m.host})
			}
		}
		w.refused(remove(100*time.Millisecond), codes.DeadlineExceeded)
		if err := remove(time.Minute); err == nil || status.Code(err) == codes.NotFound {
			w.Errorf("%s was removed by the word of one that nobody heard: %v", f.id, err)
		}
		w.wait(10 * time.Second) // the others have a leader
		w.net.unmute()
		w.wait(time.Minute)
		if n := len(must[*schedv1.GetStatusResponse](w)(w.primary.clusters.GetStatus(w.Context(), &schedv1.GetStatusRequest{})).GetStatus().GetPrimaries()); n != 3 {
			w.Errorf("the group has %d primaries, want all three: nothing was agreed", n)
		}
	})
}

// empty removes a primary from the group, and has it begin again with an empty disk. That it
// is not there may be the answer to having asked again.
func (w *world) empty(m *member) {
	w.Helper()
	w.await("the removal of "+m.id, time.Minute, func() bool {
		_, err := w.primary.clusters.RemovePrimary(w.Context(), &schedv1.RemovePrimaryRequest{Id: m.id})
		return err == nil || status.Code(err) == codes.NotFound
	})
	m.leave()
	m.wipe()
	m.start()
}
