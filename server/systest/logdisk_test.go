package systest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// breakLogs has the disk of a member's run logs fail, or work again. That of what is
// agreed is another one.
func (m *member) breakLogs(on bool) {
	m.w.Helper()
	if on == m.logsBroken {
		return
	}
	m.logsBroken = on
	dir := filepath.Join(m.dir, "runlogs")
	step := func(err error) {
		if err != nil {
			m.w.Fatalf("breaking the disk of %s: %v", m.id, err)
		}
	}
	if on {
		step(os.Rename(dir, dir+".away"))
		step(os.WriteFile(dir, nil, 0o600))
		return
	}
	step(os.Remove(dir))
	step(os.Rename(dir+".away", dir))
	m.logsMended = time.Now()
}

// logsTrusted is for how long a disk that failed to take output has to take some until its
// primary takes workers again, and some of what it tries.
const logsTrusted = time.Minute + 10*time.Second

// trustsLogs tells whether all primaries take workers whose disks took no output: until
// then none of them is mended.
func (w *world) trustsLogs() bool {
	return !slices.ContainsFunc(w.group, func(m *member) bool {
		return !m.logsMended.IsZero() && time.Now().Before(m.logsMended.Add(logsTrusted))
	})
}

// awaitLogs waits for that.
func (w *world) awaitLogs() {
	for !w.trustsLogs() {
		time.Sleep(time.Second)
	}
}

// ready tells what a load balancer hears of the member.
func (m *member) ready() bool {
	m.w.Helper()
	ctx, cancel := context.WithTimeout(m.w.Context(), time.Second)
	defer cancel()
	r, err := grpc_health_v1.NewHealthClient(m.own.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		m.w.Fatalf("the health of %s: %v", m.id, err)
	}
	return r.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING
}

// through counts the workers, of both kinds, that came in through a member.
func (m *member) through() (n int) {
	for _, k := range m.w.workers {
		if m.w.known(k.name).GetGateway() == m.id {
			n++
		}
	}
	return n
}

// kept waits until the output of all runs of a job that have ended is durable.
func (w *world) kept(job string, limit time.Duration) {
	w.Helper()
	for _, r := range w.runsOf(job) {
		if !final(r.GetPhase()) {
			continue
		}
		w.await("the output of run "+r.GetId()+" is durable", limit, func() bool {
			for _, a := range w.get(r.GetId()).GetAttempts() {
				if a.GetLogDurableBytes() < a.GetLogBytes() {
					return false
				}
			}
			return true
		})
	}
}

// newLogDiskWorld starts three primaries, and workers of both kinds with a job.
func newLogDiskWorld(w *world) {
	w.startGroup(3)
	for i := range 4 {
		w.startWorker(fmt.Sprint("shop-", i), nil, 10)
	}
	for i := range 2 {
		w.startDirectWorker(fmt.Sprint("vault-", i), nil, 10)
	}
	w.awaitOnline()
	w.does("j", talker(10*time.Second, time.Second))
	w.define(job("j", every(15*time.Second), overlapAllowed))
	w.wait(time.Minute)
}

// The disk for the output of runs fails on one primary of three, on the one that leads
// too. Its workers go to the others, though the load balancer asks nobody how he is, and
// all output is durable soon. When it works again it takes workers.
func TestLogDiskFails(t *testing.T) {
	story(t, func(w *world) {
		newLogDiskWorld(w)
		for _, m := range []*member{w.awaitLeader(), w.group[0], w.group[1]} {
			m.breakLogs(true)
			w.wait(time.Minute)
			w.kept("j", time.Minute)
			w.wait(2 * time.Minute)
			if n := m.through(); n > 0 {
				w.Errorf("%d workers are with %s, which keeps no output", n, m.id)
			}
			for _, o := range w.group {
				if is := o.ready(); is != (o != m) {
					w.Errorf("while the disk of %s fails, %s is ready: %v", m.id, o.id, is)
				}
			}
			w.workers[0].link.reset() // it comes back through one of the others
			w.wait(20 * time.Second)
			if n := m.through(); n > 0 {
				w.Errorf("%d workers came in through %s, which keeps no output", n, m.id)
			}
			w.kept("j", time.Minute)
			m.breakLogs(false)
			w.await(m.id+" is ready again", 2*time.Minute, m.ready)
			w.await("a worker comes in through "+m.id, 2*time.Minute, func() bool {
				w.workers[0].link.reset()
				w.wait(5 * time.Second)
				return m.through() > 0
			})
		}
		w.settle(time.Hour)
		w.checkEverywhere()
		w.all(w.runsOf("j"), phaseSucceeded)
	})
}

// The disks for the output of runs fill on all three primaries, as they do together,
// since all keep the same logs. Runs go on, people can look and cancel through any, and
// all output is kept when there is room.
func TestAllLogDisksFail(t *testing.T) {
	story(t, func(w *world) {
		newLogDiskWorld(w)
		for _, m := range w.group {
			m.breakLogs(true)
			w.wait(20 * time.Second)
		}
		w.wait(3 * time.Minute)
		w.awaitLeader().leave() // the next leader has to be told of all disks
		w.wait(time.Minute)
		for _, m := range w.group {
			if m.server == nil {
				m.breakLogs(false)
				m.start()
				m.breakLogs(true)
			}
		}
		for range 10 {
			w.wait(20 * time.Second)
			for _, m := range w.group {
				if !m.ready() {
					w.Errorf("%s is not ready, though nobody is better off", m.id)
				}
			}
		}
		w.awaitOnline()
		late := w.run("j")
		w.cancel(late.GetId())
		w.awaitPhase(late.GetId(), time.Minute, schedv1.Phase_PHASE_CANCELLED, phaseSucceeded)
		for _, m := range w.group {
			m.breakLogs(false)
		}
		w.wait(2 * time.Minute)
		w.kept("j", 2*time.Minute)
		w.settle(time.Hour)
		w.checkEverywhere()
	})
}
