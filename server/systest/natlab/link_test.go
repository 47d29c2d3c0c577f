//go:build e2e && linux

package natlab_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"

	"github.com/schedd/schedd/server/systest/natlab/faultnet"
)

const (
	// cancels is how many runs are cancelled for one figure.
	cancels = 100
	// cancelWithin is what 99 of 100 of them have to take effect in.
	cancelWithin = 150 * time.Millisecond
	// cancelSlack is how much longer than promised, or than on the idle link of the
	// same run if that is worse, it may take before the test fails: what the machine
	// itself is late by comes on top of both, see steps. Output that is sent without
	// credit fills the link's queues, and makes it far more.
	cancelSlack = 150 * time.Millisecond
	// recordSlack is the same for the end on record, which waits for disks that other
	// tests keep busy.
	recordSlack = time.Second
)

// slow is a link of 10 Mbit/s and 20 ms.
var slow = faultnet.Direction{Rate: 10_000_000 / 8, Delay: 20 * time.Millisecond}

// A worker is at the end of a thin link, and one of its jobs writes more than
// that can carry. What is urgent does not wait behind it.
func slowLink(t *testing.T, l *lab) {
	quiet.Lock()
	defer quiet.Unlock()
	link := l.link(t)
	w := l.newWorker(t, "wc", l.spare)
	w.owner, w.server = t, linkAddr
	w.launch(t)
	l.online(t, w, 0)
	link.Set(faultnet.Conditions{Up: slow, Down: slow})

	victim := l.script("victim", w, tell+`trap 'echo $EPOCHREALTIME >"$LAB_FILE.$SCHEDD_RUN_ID"; exit 0' TERM; sleep 600 & wait`)
	victim.GetTask().GetScript().Interpreter = []string{"/bin/bash", "-e"} // sh has to start a process to know the time
	l.put(t, victim)
	idle := l.cancelMany(t, "idle")
	// More than the link carries, and no end of it, however long all this takes.
	water := l.script("flood", w, tell+`until [ -e "$LAB_FILE.dry" ]; do head -c 199999 /dev/zero | tr '\0' x; echo; sleep 0.1; done`)
	water.Policy.LogLimitBytes = 4 << 30
	l.put(t, water)
	flood := l.awaitRunning(t, l.run(t, "flood", "once"))
	start, before := time.Now(), l.shipped(t, flood)
	busy := l.cancelMany(t, "flood")
	speed := float64(l.shipped(t, flood)-before) / time.Since(start).Seconds()
	if err := os.WriteFile(l.file+".dry", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, m := range []struct {
		what       string
		idle, busy []time.Duration
		slack      time.Duration
	}{{"signalled", idle.signalled, busy.signalled, cancelSlack}, {"on record", idle.recorded, busy.recorded, recordSlack}} {
		p99, worst := percentile(m.busy, 99), machine.worst(start, time.Now())
		measured(t, "10 Mbit/s, 20 ms, log flood at %.2f MB/s: a cancelled run is %s after p50 %v, p99 %v (promised p99: %v); idle link: p50 %v, p99 %v; the machine's longest step: %v",
			speed/1e6, m.what, percentile(m.busy, 50), p99, cancelWithin, percentile(m.idle, 50), percentile(m.idle, 99), worst.Round(time.Millisecond))
		if limit := m.slack + max(cancelWithin, percentile(m.idle, 99)) + steps*worst; p99 > limit {
			t.Errorf("cancelling takes %v; more than %v is too long even here", p99, limit)
		}
	}

	link.Set(faultnet.Conditions{}) // what the flood has left need not take as long
	flood = l.awaitRun(t, flood, "has ended", over)
	if n := int64(len(l.primaries[0].readLog(t, flood.GetId()))); n != last(flood).GetLogBytes() || n%200_000 != 0 {
		t.Errorf("the log of the flood has %d bytes, and the attempt says %d", n, last(flood).GetLogBytes())
	}
	w.end()
}

// linkAddr is where the slow link begins, on the worker's own host.
const linkAddr = "127.0.0.1:7421"

// link lays a link from the spare network's host to the load balancer.
func (l *lab) link(t *testing.T) *faultnet.Proxy {
	t.Helper()
	from := l.spare.host
	ctx, cancel := context.WithCancel(t.Context())
	listener, err := from.listen(ctx, linkAddr)
	if err != nil {
		t.Fatal(err)
	}
	p := faultnet.New(func(ctx context.Context) (conn net.Conn, err error) { return from.dial(ctx, balancerAddr) })
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.Serve(ctx, listener); err != nil {
			t.Errorf("the slow link: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return p
}

// shipped is how much of a run's log the primaries have.
func (l *lab) shipped(t *testing.T, r *schedv1.Run) int64 {
	t.Helper()
	return last(l.get(t, r.GetId())).GetLogDurableBytes()
}

// latencies are how long cancelling took, from the call to the process's signal
// and to the end on record.
type latencies struct{ signalled, recorded []time.Duration }

// cancelMany cancels runs of the victim, one after the other. What it can't measure,
// since a primary was not able to answer at that moment, does not count.
func (l *lab) cancelMany(t *testing.T, request string) (m latencies) {
	t.Helper()
	var runs []*schedv1.Run
	for i := range cancels {
		runs = append(runs, l.run(t, "victim", fmt.Sprint(request, i)))
	}
	for _, r := range runs {
		l.awaitRunning(t, r)
	}
	for len(runs) > 0 {
		done, err := l.cancelSome(t, runs, &m)
		runs = runs[done:]
		if err != nil {
			measured(t, "a run was cancelled that does not count: %v", err)
			r := runs[0]
			l.ask(t, "cancel a run", func(ctx context.Context, p *primary) error {
				_, err := p.runs.CancelRun(ctx, &schedv1.CancelRunRequest{Id: r.GetId(), Note: "once more"})
				return err
			})
			l.awaitRun(t, r, "has ended", over)
			runs = runs[1:]
		}
	}
	if n := len(m.signalled); n < cancels/2 {
		t.Fatalf("%d of %d runs could be measured", n, cancels)
	}
	return m
}

// cancelSome cancels runs through the leader until one can't be, and returns how many
// of them it has measured.
func (l *lab) cancelSome(t *testing.T, runs []*schedv1.Run, m *latencies) (done int, err error) {
	t.Helper()
	p := l.leader(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch, err := p.runs.WatchRuns(ctx, &schedv1.WatchRunsRequest{Filter: "job=victim", ChangesOnly: true})
	if err != nil {
		return 0, err
	}
	if _, err := watch.Recv(); err != nil { // from now on no change is missed
		return 0, err
	}
	for i, r := range runs {
		start := time.Now()
		if _, err := p.runs.CancelRun(ctx, &schedv1.CancelRunRequest{Id: r.GetId(), Note: "how long does it take?"}); err != nil {
			return i, err
		}
		for ended := false; !ended; {
			change, err := watch.Recv()
			if err != nil {
				return i, err
			}
			ended = change.GetRun().GetId() == r.GetId() && over(change.GetRun())
		}
		recorded := time.Since(start)
		text, err := os.ReadFile(l.file + "." + r.GetId())
		if err != nil {
			t.Fatalf("the process of a cancelled run wrote nothing: %v", err)
		}
		at, err := readMoment(string(text))
		if err != nil {
			t.Fatalf("the process of a cancelled run wrote %q: %v", text, err)
		}
		m.recorded, m.signalled = append(m.recorded, recorded), append(m.signalled, at.Sub(start))
	}
	return len(runs), nil
}

// percentile is what so many of a hundred stay within.
func percentile(all []time.Duration, of int) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*of+99)/100-1].Round(100 * time.Microsecond)
}
