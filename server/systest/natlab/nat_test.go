//go:build e2e && linux

package natlab_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// What is promised. What a busy machine gets on top is in strain_test.go.
const (
	onlineWithin = 5 * time.Second // from the start of a worker
	fireWithin   = 3 * time.Second // how late the next fire may be after the leader was killed
	backWithin   = 5 * time.Second // from the kill of a gateway to the worker's next session
	// noticedWithin is from a connection's end of which nobody is told to the worker's
	// next session: keepalive's 30 s and a redial, for the connection may end just after
	// something was heard.
	noticedWithin = 35 * time.Second
	// restartWithin is how late a fire may be while primary after primary is restarted:
	// a worker has another session before it leaves one, and the leadership is handed
	// over.
	restartWithin = 3 * time.Second
	// againWithin is from the end of a fault to when all is well.
	againWithin = 20 * time.Second
)

// halt is for how long a machine stands still.
const halt = 20 * time.Second

// silence is how long nothing happens, to see whether sessions survive it.
const silence = 3 * time.Minute

// scenario is a fault, from a healthy state to a healthy state.
type scenario struct {
	name string
	run  func(*testing.T, *lab)
}

// rounds are what labs go through, each a lab of its own behind each kind of load
// balancer. Most of it is waiting, so all rounds are run beside each other; a round
// takes as long as the silence does, or less.
var rounds = []struct {
	name      string
	scenarios []scenario
}{
	{"Calm", []scenario{
		{"Idle", staysOnline},
	}},
	{"Broken", []scenario{
		{"LeaderIsKilled", leaderIsKilled},
		{"GatewayIsKilled", gatewayIsKilled},
		{"LinksGoDead", linksGoDead},
	}},
	{"Restarted", []scenario{
		{"PrimaryIsHalted", primaryIsHalted},
		{"BalancerRestarts", balancerRestarts},
		{"RollingRestart", rollingRestart},
	}},
	{"Strained", []scenario{ // one lab after the other: see quiet
		{"Crowd", crowdReconnects},
		{"SlowLink", slowLink},
	}},
}

// building holds a token for each lab that is being built: no more of them at a time than
// there are kinds, since that is hard work, and workers are to be online at once.
var building = make(chan struct{}, len(kinds))

// Behind every kind of load balancer, and whatever happens to it, to the
// primaries and on the way, workers in private networks do what they should when
// they should.
func TestBehindBalancer(t *testing.T) {
	needs(t, "ip", "iptables", "haproxy", "nginx")
	for i, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			for _, r := range rounds {
				todo := slices.Clone(r.scenarios)
				if i == 0 && r.name == "Broken" { // it has nothing to do with load balancers
					todo = append(todo, scenario{"Direct", direct})
				}
				t.Run(r.name, func(t *testing.T) {
					t.Parallel()
					// Each lab begins somewhere else, since some of this is hard work, and some
					// is none.
					at := i * len(todo) / len(kinds)
					goThrough(t, build(t, k), slices.Concat(todo[at:], todo[:at]))
				})
			}
		})
	}
}

// build builds a lab, and sees that all of it is there.
func build(t *testing.T, k kind) *lab {
	t.Helper()
	building <- struct{}{}
	defer func() { <-building }()
	l := newLab(t, k, 3)
	t.Run("Online", func(t *testing.T) { online(t, l) })
	if t.Failed() {
		t.FailNow() // nothing else makes sense
	}
	return l
}

// goThrough has a lab go through scenarios.
func goThrough(t *testing.T, l *lab, todo []scenario) {
	t.Helper()
	for _, s := range todo {
		t.Run(s.name, func(t *testing.T) {
			l.heal(t)
			s.run(t, l)
		})
	}
}

// heal waits until all is well, whatever the last scenario left.
func (l *lab) heal(t *testing.T) {
	t.Helper()
	for _, p := range l.primaries {
		l.revive(t, p)
	}
	l.online(t, l.a, 0)
	l.online(t, l.b, 0)
}

// revive starts a primary that has ended, and waits until it takes calls.
func (l *lab) revive(t *testing.T, p *primary) {
	t.Helper()
	if p.halted.Load() {
		p.resume(t)
	}
	if !p.running() {
		p.launch(t)
	}
	p.ready(t)
}

// both returns both workers when they are connected.
func (l *lab) both(t *testing.T) (a, b *schedv1.Worker) {
	t.Helper()
	return l.online(t, l.a, 0), l.online(t, l.b, 0)
}

// quiet is held by what needs the machine for itself, or all of it.
var quiet sync.Mutex

// Two workers that say the same of themselves, and that nobody could reach
// there, are online at once.
func online(t *testing.T, l *lab) {
	started := map[*worker]time.Time{}
	for _, w := range []*worker{l.a, l.b} {
		w.launch(t)
		started[w] = time.Now()
	}
	for w, at := range started {
		l.online(t, w, 0)
		promised(t, "worker "+w.name+" online after", at, time.Since(at), onlineWithin)
	}
	a, b := l.both(t)
	for _, w := range []*schedv1.Worker{a, b} {
		if ad := w.GetAdvertise(); ad.GetHostname() != hostname || ad.GetIp() != privateIP {
			t.Errorf("worker %s advertises %v", w.GetName(), ad)
		}
		if l.primary(w.GetGateway()) == nil {
			t.Errorf("worker %s has the gateway %q", w.GetName(), w.GetGateway())
		}
		measured(t, "worker %s at %s comes from %s", w.GetName(), w.GetGateway(), w.GetObservedAddress())
	}
	if a.GetId() == b.GetId() {
		t.Errorf("both workers are %s", a.GetId())
	}
}

// Nothing happens for many idle timeouts, and the workers are still there, and
// start at once what is due.
func staysOnline(t *testing.T, l *lab) {
	start := time.Now()
	seen := l.watch(t, silence)
	for name, n := range seen.sessions {
		measured(t, "worker %s needed %d sessions for %v of silence, at an idle timeout of %v", name, len(n), silence, idle)
		if len(n) != 1 && uncut(t, start) {
			t.Errorf("worker %s was cut while nothing happened: its sessions were %x", name, slices.Sorted(maps.Keys(n)))
		}
	}
	start = time.Now()
	a, b := l.ticking(t, func() { pass(t, 10*time.Second) })
	for _, s := range []*story{a, b} {
		measured(t, "%s: %d ticks, %v", s.job, len(s.runs), s.late(start))
	}
}

// sightings are what was seen of both workers for a while.
type sightings struct {
	sessions       map[string]map[uint64]bool // by worker's name
	looks, unknown int
}

// watch looks at both workers for d. Neither may be given up meanwhile. A leader
// that is new does not know who is connected until the other primaries have told
// it, and has the worker as offline until then, but not as last seen ever: it is
// not given up.
func (l *lab) watch(t *testing.T, d time.Duration) *sightings {
	t.Helper()
	s := &sightings{sessions: map[string]map[uint64]bool{l.a.name: {}, l.b.name: {}}}
	for end := time.Now().Add(d); time.Now().Before(end); pass(t, min(time.Second, time.Until(end))) {
		for name, w := range l.known(t, l.a.name, l.b.name) {
			s.looks++
			switch {
			case w.GetConnectedTime() != nil:
				s.sessions[name][w.GetSessionEpoch()] = true
			case w.GetLastSeenTime() == nil:
				s.unknown++
			}
			if w.GetPhase() == schedv1.WorkerPhase_WORKER_PHASE_OFFLINE && w.GetLastSeenTime() != nil {
				t.Errorf("worker %s was given up: %v", name, w)
			}
		}
	}
	return s
}

// The leader is killed. The next one goes on in time, and whoever is connected
// somewhere else does not notice.
func leaderIsKilled(t *testing.T, l *lab) {
	before, after := map[string]uint64{}, map[string]uint64{}
	var killed time.Time
	a, b := l.ticking(t, func() {
		leader := l.lonelyLeader(t)
		for _, w := range []*worker{l.a, l.b} {
			before[w.name] = l.online(t, w, 0).GetSessionEpoch()
		}
		killed = time.Now()
		leader.kill()
		seen := l.watch(t, 4*fireWithin)
		measured(t, "new leaders did not know of the workers' sessions in %d of %d looks", seen.unknown, seen.looks)
		for _, w := range []*worker{l.a, l.b} {
			after[w.name] = l.online(t, w, 0).GetSessionEpoch()
		}
		l.revive(t, leader)
	})
	for name := range before {
		if before[name] != after[name] && uncut(t, killed) {
			t.Errorf("worker %s was cut: it had session %x, and then %x", name, before[name], after[name])
		}
	}
	for _, s := range []*story{a, b} {
		inTime(t, s, killed, fireWithin)
	}
}

// inTime checks how late a job ticked after a primary was gone.
func inTime(t *testing.T, s *story, since time.Time, within time.Duration) {
	t.Helper()
	late := s.late(since)
	measured(t, "%s: %v", s.job, late)
	promised(t, "a tick of "+s.job+" ran late by", since, late.ran, within)
}

// lonelyLeader makes a primary the leader that holds no session, if there is
// one.
func (l *lab) lonelyLeader(t *testing.T) *primary {
	t.Helper()
	a, b := l.both(t)
	for _, p := range l.primaries {
		if p.id != a.GetGateway() && p.id != b.GetGateway() {
			l.lead(t, p)
			return p
		}
	}
	return l.leader(t)
}

// A primary is killed that holds a worker's session and does not lead. The worker
// comes back through another one, and what it runs does not notice.
func gatewayIsKilled(t *testing.T, l *lab) {
	held, _ := l.both(t)
	gateway := l.primary(held.GetGateway())
	if l.leader(t) == gateway {
		l.lead(t, l.others(gateway)[0])
	}
	long := l.count(t, l.a)
	start := time.Now()
	held, _ = l.both(t)
	gateway = l.primary(held.GetGateway())
	_, _ = l.ticking(t, func() {
		killed := time.Now()
		gateway.kill()
		back := l.online(t, l.a, held.GetSessionEpoch())
		promised(t, fmt.Sprintf("gateway %s killed: worker back at %s after", gateway.id, back.GetGateway()), killed, time.Since(killed), backWithin)
		if back.GetGateway() == gateway.id {
			t.Errorf("the worker is back at a primary that is dead: %v", back)
		}
	})
	pass(t, time.Until(start.Add(time.Minute)))
	l.whole(t, long, l.others(gateway)) // while it is down
	l.revive(t, gateway)
	l.whole(t, long, l.primaries)
}

// The load balancer takes over another configuration, and then it is gone for a
// moment, and all connections with it.
func balancerRestarts(t *testing.T, l *lab) {
	longs := []*schedv1.Run{l.count(t, l.a), l.count(t, l.b)}
	_, _ = l.ticking(t, func() {
		l.balancer.reload(t)
		pass(t, 12*time.Second) // until what was there before has been told to end
		a, b := l.online(t, l.a, 0), l.online(t, l.b, 0)
		start := time.Now()
		l.balancer.stop(t)
		l.balancer.start(t)
		l.online(t, l.a, a.GetSessionEpoch())
		l.online(t, l.b, b.GetSessionEpoch())
		promised(t, "load balancer restarted: workers back after", start, time.Since(start), backWithin)
	})
	for _, r := range longs {
		l.whole(t, r, l.primaries)
	}
}

// The link of one worker is dead for a minute, and the router of the other one
// forgets all flows: both have connections then of which nobody tells them that
// they are no more.
func linksGoDead(t *testing.T, l *lab) {
	longs := []*schedv1.Run{l.count(t, l.a), l.count(t, l.b)}
	_, _ = l.ticking(t, func() {
		a, b := l.both(t)
		start := time.Now()
		l.a.net.cut(t)
		l.b.net.router.forget(t)
		l.online(t, l.b, b.GetSessionEpoch())
		promised(t, "router forgot its flows: worker back after", start, time.Since(start), noticedWithin)
		pass(t, time.Until(start.Add(time.Minute)))
		mended := time.Now()
		l.a.net.mend(t)
		now := l.online(t, l.a, 0)
		await(t, "the worker behind the dead link is heard of", func() (bool, any) {
			now = l.known(t, l.a.name)[l.a.name]
			return now.GetLastSeenTime().AsTime().After(mended) || now.GetConnectedTime().AsTime().After(mended), now
		})
		promised(t, fmt.Sprintf("link mended after %v: worker, which had session %x, back in %x after",
			mended.Sub(start).Round(time.Second), a.GetSessionEpoch(), now.GetSessionEpoch()), mended, time.Since(mended), againWithin)
	})
	for _, r := range longs {
		l.whole(t, r, l.primaries)
	}
}

// A machine stands still for 20 s and then goes on as if nothing had happened:
// first that of the leader, then that of a gateway.
func primaryIsHalted(t *testing.T, l *lab) {
	longs := []*schedv1.Run{l.count(t, l.a), l.count(t, l.b)}
	t.Run("Leader", func(t *testing.T) {
		halted := time.Now()
		a, b := l.ticking(t, func() { l.stand(t, l.lonelyLeader(t)) })
		inTime(t, a, halted, fireWithin)
		inTime(t, b, halted, fireWithin)
	})
	t.Run("Gateway", func(t *testing.T) {
		halted := time.Now()
		a, b := l.ticking(t, func() {
			held, _ := l.both(t)
			l.stand(t, l.primary(held.GetGateway()))
		})
		// Nothing tells a worker that its gateway stands still, and does not just have
		// nothing to say.
		inTime(t, a, halted, halt+againWithin)
		inTime(t, b, halted, halt+againWithin)
	})
	for _, r := range longs {
		l.whole(t, r, l.primaries)
	}
}

// stand has a primary stand still for a while, and waits until all is well.
func (l *lab) stand(t *testing.T, p *primary) {
	t.Helper()
	p.halt(t)
	pass(t, halt)
	p.resume(t)
	start := time.Now()
	p.ready(t)
	l.online(t, l.a, 0)
	l.online(t, l.b, 0)
	promised(t, fmt.Sprintf("halted for %v: all well after it went on for", halt), start, time.Since(start), againWithin)
}

// All primaries are restarted, one after the other, twice, as in upgrades, while
// jobs run and people ask for more. Nobody notices.
func rollingRestart(t *testing.T, l *lab) {
	longs := []*schedv1.Run{l.count(t, l.a), l.count(t, l.b)}
	asked := l.asking(t)
	burst := l.bursting(t)
	start := time.Now()
	a, b := l.ticking(t, func() {
		for range 2 {
			for _, p := range l.primaries {
				p.end()
				if p.code != 0 {
					t.Errorf("%s ended with exit code %d", p.id, p.code)
				}
				l.revive(t, p)
				l.online(t, l.a, 0)
				l.online(t, l.b, 0)
			}
		}
		measured(t, "%d restarts took %v", 2*len(l.primaries), time.Since(start).Round(time.Millisecond))
	})
	for _, s := range []*story{a, b} {
		inTime(t, s, start, restartWithin)
	}
	asked(t)
	burst(t)
	for _, r := range longs {
		l.whole(t, r, l.primaries)
	}
}

// asking has somebody ask for runs, one after the other, until what it returns is
// called: then each run that was promised has to have run once.
func (l *lab) asking(t *testing.T) (check func(*testing.T)) {
	t.Helper()
	l.put(t, l.script("asked", l.b, tell))
	stop, promised := make(chan struct{}), make(chan map[string]*schedv1.Run, 1)
	var asks sync.WaitGroup
	quit := sync.OnceFunc(func() {
		close(stop)
		asks.Wait()
	})
	t.Cleanup(quit) // a test that fails does not come to check
	asks.Go(func() {
		runs := map[string]*schedv1.Run{}
		defer func() { promised <- runs }()
		again := time.NewTicker(look)
		defer again.Stop()
		for {
			select {
			case <-stop:
				return
			case <-again.C:
			}
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), callWithin)
			p := l.primaries[rand.IntN(len(l.primaries))]
			resp, err := p.jobs.RunJob(ctx, &schedv1.RunJobRequest{Name: "asked", RequestId: fmt.Sprint("request", len(runs))})
			cancel()
			if err == nil {
				runs[resp.GetRun().GetId()] = resp.GetRun()
			} else if c := status.Code(err); c != codes.Unavailable && c != codes.DeadlineExceeded {
				t.Errorf("%s says %v", p.id, err)
			}
		}
	})
	return func(t *testing.T) {
		t.Helper()
		quit()
		runs := <-promised
		s := &story{job: "asked"}
		for _, r := range runs {
			s.runs = append(s.runs, l.awaitRun(t, r, "has ended", over))
		}
		s.effects = l.effects(t, s.job)
		complain(t, s.job, s.mismatches())
		measured(t, "%d runs were asked for meanwhile", len(runs))
	}
}

// bursting has a job write much at once, each second, until what it returns is
// called: then all of it has to be there, at each primary.
func (l *lab) bursting(t *testing.T) (check func(*testing.T)) {
	t.Helper()
	const lines = 5000
	j := l.script("burst", l.a, fmt.Sprint("seq ", lines))
	j.Triggers = eachSecond
	l.put(t, j)
	return func(t *testing.T) {
		t.Helper()
		l.hold(t, j.GetName())
		var want strings.Builder
		for n := range lines {
			fmt.Fprintln(&want, n+1)
		}
		for _, r := range l.awaitList(t, j.GetName(), "all have ended", ended) {
			for _, p := range l.primaries {
				if got := string(p.readLog(t, r.GetId())); got != want.String() {
					t.Errorf("%s has a log of %d bytes, want %d", p.id, len(got), want.Len())
				}
			}
		}
	}
}

// A worker that can't dial out is dialled. The primary that holds its session is
// killed, and another one dials it; what it runs does not notice.
func direct(t *testing.T, l *lab) {
	h := l.public(t, "direct", "203.0.113.50")
	h.iptables(t, "-A OUTPUT -o eth0 -p tcp --syn -j DROP")
	w := l.newWorker(t, "wd", &private{host: h})
	w.owner, w.listen = t, "203.0.113.50:7422"
	w.launch(t)
	l.ask(t, "have the primaries dial a worker", func(ctx context.Context, p *primary) error {
		_, err := p.workers.AddDirectWorker(ctx, &schedv1.AddDirectWorkerRequest{Address: w.listen})
		return err
	})
	start := time.Now()
	held := l.online(t, w, 0)
	measured(t, "worker dialled by %s after %v", held.GetGateway(), time.Since(start).Round(time.Millisecond))
	if held.GetMode() != schedv1.Worker_DIRECT {
		t.Errorf("the worker's mode is %v", held.GetMode())
	}
	long := l.count(t, w)
	gateway := l.primary(held.GetGateway())
	gateway.kill()
	start = time.Now()
	back := l.online(t, w, held.GetSessionEpoch())
	measured(t, "gateway %s killed: worker dialled by %s after %v", gateway.id, back.GetGateway(), time.Since(start).Round(time.Millisecond))
	l.whole(t, long, l.others(gateway))
	l.revive(t, gateway)
	l.ask(t, "have the primaries dial it no longer", func(ctx context.Context, p *primary) error {
		_, err := p.workers.RemoveDirectWorker(ctx, &schedv1.RemoveDirectWorkerRequest{Address: w.listen})
		return err
	})
	w.end()
}
