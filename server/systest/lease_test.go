package systest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

const (
	leaseExpired = schedv1.Outcome_OUTCOME_LEASE_EXPIRED
	onLostRetry  = schedv1.OnLost_ON_LOST_RETRY
)

// leases is a policy by which an attempt goes on for a minute without a lease, and is
// given up after 82 seconds of silence and made again.
func leases() *schedv1.Policy {
	return &schedv1.Policy{KillAfter: seconds(60), LostAfter: seconds(82), KillGrace: seconds(10), OnLost: onLostRetry}
}

// leased takes note that no two attempts of a run of this job may overlap, ever.
func (w *world) leased(j *schedv1.Job) *schedv1.Job {
	w.needsLeases[j.GetName()] = true
	return j
}

// deafForEver is a process that ends when it is killed, and not before its grace is over.
func deafForEver(runner.Spec) fakerunner.Behaviour {
	return fakerunner.Behaviour{Duration: -1, IgnoreTerm: true}
}

// lives returns what really ran of some runs, wherever it did, by run.
func (w *world) lives(of map[string]bool) map[string][]fakerunner.Life {
	lives := map[string][]fakerunner.Life{}
	for _, h := range w.hosts {
		for _, l := range h.Lives() {
			if run, _, _ := strings.Cut(l.Spec.ID, "/"); of[run] {
				lives[run] = append(lives[run], l)
			}
		}
	}
	for _, l := range lives {
		slices.SortFunc(l, func(a, b fakerunner.Life) int { return a.From.Compare(b.From) })
	}
	return lives
}

// The check sees what happens to a job without leases.
func TestOverlapCheckBites(t *testing.T) {
	story(t, func(w *world) {
		k := shop(w)
		w.takes("j", 10*time.Minute)
		w.define(job("j", policy(&schedv1.Policy{OnLost: onLostRetry, LostAfter: seconds(60)})))
		w.run("j")
		w.wait(time.Minute)
		w.startWorker("shop-2", nil, 4)
		w.awaitOnline()
		k.link.cut()
		w.wait(4 * time.Minute)
		k.link.mend()
		w.settle(time.Hour)
		w.checkAll()
		w.suspects = []string{}
		w.put["j"][0].job.Policy.KillAfter = seconds(60)
		w.checkAll()
		said := strings.Join(w.suspects, "\n")
		w.suspects = nil
		for _, want := range []string{"/1 ran from", "2 ran at ", "and its policy allows 1", "had an effect with the fence"} {
			if !strings.Contains(said, want) {
				w.Errorf("the check says:\n%s\nwant %q", said, want)
			}
		}
	})
}

// together returns how many processes of a job were alive at the same time, at most.
func (w *world) together(name string) (most int) {
	of := map[string]bool{}
	for _, r := range w.runsOf(name) {
		of[r.GetId()] = true
	}
	type edge struct {
		at time.Time
		by int
	}
	var edges []edge
	for _, lives := range w.lives(of) {
		for _, l := range lives {
			edges = append(edges, edge{l.From, 1})
			if !l.To.IsZero() {
				edges = append(edges, edge{l.To, -1})
			}
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.by, b.by)) })
	n := 0
	for _, e := range edges {
		n += e.by
		most = max(most, n)
	}
	return most
}

// succession checks that the first attempt of a run was ended by its own worker, which
// is cut off, before the second one began; what it was told as afterwards comes late.
func (w *world) succession(id string, cut time.Time) {
	w.Helper()
	lives := w.lives(map[string]bool{id: true})[id]
	if len(lives) != 2 {
		w.Fatalf("%d attempts ran", len(lives))
	}
	first, second := lives[0], lives[1]
	if first.To.IsZero() || !first.To.Before(second.From) {
		w.Errorf("the first attempt ran until %v, and the second one from %v on", first.To, second.From)
	}
	if after := first.To.Sub(cut); after > 70*time.Second || after < 40*time.Second {
		w.Errorf("the first attempt ended %v after the cut", after)
	}
	if after := second.From.Sub(cut); after > 4*time.Minute {
		w.Errorf("the second attempt began %v after the cut", after)
	}
}

// A worker is cut off from everybody, or only hears nothing, or is only not heard. It
// ends what runs before another worker begins.
func TestLeaseOfAWorkerThatIsCutOff(t *testing.T) {
	for name, cut := range map[string]func(w *world, k *worker){
		"cut off":         func(_ *world, k *worker) { k.link.cut() },
		"frozen":          func(_ *world, k *worker) { k.link.strand() },
		"hears nothing":   func(w *world, k *worker) { w.net.mute(way{"primary-1", k.name}) },
		"heard by nobody": func(w *world, k *worker) { w.net.mute(way{k.name, "primary-1"}) },
		"its agent is killed": func(_ *world, k *worker) {
			k.crash()
			k.link.cut()
		},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				k := shop(w)
				w.does("j", deafForEver)
				w.define(w.leased(job("j", policy(leases()))))
				r := w.run("j")
				w.wait(5 * time.Minute)
				other := w.startWorker("shop-2", nil, 4)
				w.awaitOnline()
				if n := len(k.host.Running()); n != 1 {
					t.Fatalf("with leases %d run", n)
				}
				began := time.Now()
				cut(w, k)
				w.wait(4 * time.Minute)
				w.succession(r.GetId(), began)
				if len(other.host.Running()) != 1 {
					w.Errorf("%q runs on the other worker", other.host.Running())
				}
				w.net.unmute()
				k.link.mend()
				if k.life == nil {
					k.start()
				}
				w.wait(2 * time.Minute)
				a := w.get(r.GetId()).GetAttempts()[0]
				if a.GetOutcome() != lost || a.GetLateResult() != leaseExpired || !strings.Contains(a.GetReason(), "had to have ended the process") {
					w.Errorf("the first attempt is %v (%s), and late %v", a.GetOutcome(), a.GetReason(), a.GetLateResult())
				}
				w.cancel(r.GetId())
				w.check()
			})
		})
	}
}

// startWorkerAt adds a host whose agent knows one primary only.
func (w *world) startWorkerAt(name string, m *member) *worker {
	w.Helper()
	k := w.newWorker(name, nil, 4)
	k.config.Server, k.config.Insecure = m.host+":"+apiPort, true
	k.start()
	return k
}

// ask has people ask one primary, as a load balancer that looks at /readyz would have
// it, until back is called.
func (w *world) ask(m *member) (back func()) {
	any := w.primary
	w.primary = m.own
	return func() { w.primary = any }
}

// leasedGroup is a group of three, and a worker that knows one of them only.
func leasedGroup(w *world, leader bool) (at *member, k *worker) {
	w.Helper()
	w.startGroup(3)
	lead := w.awaitLeader()
	at = w.group[slices.IndexFunc(w.group, func(m *member) bool { return (m == lead) == leader })]
	k = w.startWorkerAt("shop-1", at)
	w.awaitOnline()
	w.does("j", deafForEver)
	w.define(w.leased(job("j", policy(leases()))))
	return at, k
}

// A worker's gateway is cut off from the leader. It answers each ping, and yet the worker
// ends what runs: a gateway can't let anything go on.
func TestLeaseThroughAGatewayThatIsCutOff(t *testing.T) {
	story(t, func(w *world) {
		at, k := leasedGroup(w, false)
		r := w.run("j")
		w.wait(2 * time.Minute)
		if n := len(k.host.Running()); n != 1 {
			t.Fatalf("with leases %d run", n)
		}
		w.startWorkerAt("shop-2", w.awaitLeader())
		w.awaitOnline()
		cut := time.Now()
		defer w.ask(w.awaitLeader())()
		at.isolate(true)
		w.wait(50 * time.Second)
		if k.link.open() == 0 {
			w.Error("the worker has left the gateway that this is about")
		}
		w.wait(3 * time.Minute)
		w.succession(r.GetId(), cut)
		at.isolate(false)
		w.wait(time.Minute)
		w.cancel(r.GetId())
		w.settle(time.Hour)
		w.checkAll()
	})
}

// The leader itself is cut off from the others, with a worker that knows nobody else.
// It can't let anything go on any more, while the others choose another leader, which
// has what ran there made again.
func TestLeaseOfALeaderThatIsCutOff(t *testing.T) {
	for name, cut := range map[string]func(*member){
		"cut off":  func(m *member) { m.isolate(true) },
		"frozen":   func(m *member) { m.link.freeze(); m.muteAll() },
		"mute":     (*member).muteAll,
		"deaf too": func(m *member) { m.muteAll(); m.deafen() },
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				at, k := leasedGroup(w, true)
				r := w.run("j")
				w.wait(2 * time.Minute)
				if n := len(k.host.Running()); n != 1 {
					t.Fatalf("with leases %d run", n)
				}
				follower := w.group[slices.IndexFunc(w.group, func(m *member) bool { return m != at })]
				w.startWorkerAt("shop-2", follower)
				w.awaitOnline()
				began := time.Now()
				defer w.ask(follower)()
				cut(at)
				w.wait(5 * time.Minute)
				w.succession(r.GetId(), began)
				at.isolate(false)
				at.link.thaw()
				w.net.unmute()
				w.wait(time.Minute)
				w.cancel(r.GetId())
				w.settle(time.Hour)
				w.checkAll()
			})
		})
	}
}

// muteAll has nothing arrive at the other primaries that this one says.
func (m *member) muteAll() {
	for _, o := range m.w.group {
		if o != m {
			m.w.net.mute(way{m.host, o.host})
		}
	}
}

// deafen has nothing arrive at this primary that the others say.
func (m *member) deafen() {
	for _, o := range m.w.group {
		if o != m {
			m.w.net.mute(way{o.host, m.host})
		}
	}
}

// The leader is to hand over, again and again, as one does whose clock is wrong, and each
// time who is to take over hears nothing of it. While it tries, it can't be confirmed that
// it leads, so it gives no leases. It leads on all the same: who is silent is given up when
// lost_after is over, and nothing is ended that has leases before and after.
func TestLeasesWhileAHandoverFails(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		lead := w.awaitLeader()
		gone := w.startWorkerAt("gone", lead)
		w.awaitOnline()
		w.takes("silent", 3*time.Minute)
		w.define(job("silent", policy(&schedv1.Policy{LostAfter: seconds(180)})))
		silent := w.run("silent")
		w.wait(10 * time.Second)
		w.does("j", deafForEver)
		p := leases()
		p.Overlap = schedv1.Overlap_OVERLAP_ALLOW
		w.define(w.leased(job("j", policy(p))))
		for i := range 12 { // so many that some ask in each second
			w.startWorkerAt(fmt.Sprint("shop-", i), lead)
		}
		w.awaitOnline()
		for range 12 {
			w.run("j")
		}
		w.wait(time.Minute)
		deaf := w.group[slices.IndexFunc(w.group, func(m *member) bool { return m != lead })]
		defer w.ask(lead)()
		gone.crash()
		gone.link.cut()
		for cut := time.Now(); time.Since(cut) < 200*time.Second; w.wait(10 * time.Second) {
			w.net.mute(way{lead.host, deaf.host})
			_, err := w.primary.clusters.TransferLeadership(w.Context(), &schedv1.TransferLeadershipRequest{Id: deaf.id})
			w.net.unmute()
			if status.Code(err) != codes.Aborted {
				t.Fatalf("handing over to a primary that hears nothing: %v", err)
			}
		}
		if r := w.get(silent.GetId()); r.GetPhase() != schedv1.Phase_PHASE_LOST {
			w.Errorf("after 200 s of silence the run is %v: %s", r.GetPhase(), r.GetReason())
		}
		for _, r := range w.runsOf("j") {
			if r.GetPhase() != phaseRunning || len(r.GetAttempts()) != 1 {
				w.Errorf("a run with leases is %v (%s), with %d attempts", r.GetPhase(), r.GetReason(), len(r.GetAttempts()))
			}
		}
		for _, r := range w.runsOf("j") {
			w.cancel(r.GetId())
		}
		gone.link.mend()
		gone.start()
		w.settle(time.Hour)
		w.checkAll()
	})
}

// What can be lived through is: the leader is killed, a gateway is cut off from which
// the worker can go elsewhere, the agent is upgraded, the connection breaks. Nothing is
// ended that need not be.
func TestLeasesAreKept(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		var all []*worker
		for _, name := range []string{"shop-1", "shop-2", "shop-3", "shop-4"} {
			all = append(all, w.startWorker(name, nil, 10))
		}
		w.awaitOnline()
		w.does("j", talker(40*time.Minute, time.Minute))
		p := leases()
		p.KillAfter, p.LostAfter, p.Overlap = seconds(120), seconds(180), schedv1.Overlap_OVERLAP_ALLOW
		w.define(w.leased(job("j", policy(p))))
		for range 12 {
			w.run("j")
		}
		w.wait(time.Minute)
		for range 2 {
			m := w.awaitLeader()
			m.kill()
			w.wait(30 * time.Second)
			m.start()
			w.wait(time.Minute)
			m = w.awaitLeader()
			g := w.group[slices.IndexFunc(w.group, func(o *member) bool { return o != m })]
			back := w.ask(m)
			g.isolate(true)
			w.wait(2 * time.Minute)
			g.isolate(false)
			back()
			w.wait(time.Minute)
			for _, k := range all {
				k.end()
				w.wait(5 * time.Second)
				k.start()
				k.link.reset()
				w.wait(20 * time.Second)
				k.link.freeze()
				w.wait(70 * time.Second)
				k.link.thaw()
			}
		}
		w.wait(40 * time.Minute)
		w.all(w.runsOf("j"), phaseSucceeded)
		w.settle(time.Hour)
		w.checkEverywhere()
	})
}

// The least kill_after does not outlive a connection that dies without a word: the attempt is
// ended before its worker is back through another one.
func TestLeastKillAfterIsShort(t *testing.T) {
	for after, want := range map[time.Duration]schedv1.Outcome{30 * time.Second: leaseExpired, 2 * time.Minute: succeeded} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			story(t, func(w *world) {
				w.startGroup(3)
				k := w.startWorker("shop-1", nil, 10)
				w.awaitOnline()
				w.takes("j", 5*time.Minute)
				w.define(w.leased(job("j", policy(&schedv1.Policy{KillAfter: durationpb.New(after), KillGrace: seconds(10)}))))
				r := w.run("j")
				w.wait(time.Minute)
				k.link.freeze()
				w.wait(70 * time.Second)
				k.link.thaw()
				w.wait(5 * time.Minute)
				if is := w.get(r.GetId()).GetAttempts()[0].GetOutcome(); is != want {
					w.Errorf("with a kill_after of %v it is %v, want %v", after, is, want)
				}
				w.settle(time.Hour)
				w.checkEverywhere()
			})
		})
	}
}

// All primaries are down for too long. What runs is ended by its worker, which tells of
// it when they are back; that comes before the run is given up, and is what ends it.
func TestLeaseWithoutAnyPrimary(t *testing.T) {
	for name, test := range map[string]struct {
		onLost schedv1.OnLost
		want   schedv1.Phase
	}{
		"to be tried again": {onLostRetry, phaseRunning},
		"not to be":         {schedv1.OnLost_ON_LOST_FAIL, schedv1.Phase_PHASE_LOST},
		"to be waited for":  {schedv1.OnLost_ON_LOST_WAIT, schedv1.Phase_PHASE_LOST},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				k := shop(w)
				w.does("j", talker(30*time.Minute, time.Minute))
				p := leases()
				p.OnLost = test.onLost
				w.define(w.leased(job("j", policy(p))))
				r := w.run("j")
				w.wait(time.Minute)
				down := time.Now()
				w.killPrimary()
				w.wait(3 * time.Minute)
				if n := len(k.host.Running()); n != 0 {
					w.Errorf("%d processes still run", n)
				}
				w.startPrimary()
				w.wait(40 * time.Second)
				r = w.get(r.GetId())
				a := r.GetAttempts()[0]
				if r.GetPhase() != test.want || a.GetOutcome() != leaseExpired || !strings.Contains(a.GetReason(), "no lease from the leader for 1m0s (kill_after)") {
					w.Errorf("the run is %v (%s), its attempt %v (%s)", r.GetPhase(), r.GetReason(), a.GetOutcome(), a.GetReason())
				}
				if ended := a.GetFinishedTime().AsTime().Sub(down); ended > time.Minute {
					w.Errorf("it ended %v after the primary did", ended)
				}
				w.check()
			})
		})
	}
}
