package systest

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// wallClock is what the clock of a host shows. That of a bubble can't be set, so this
// one may be wrong.
type wallClock struct {
	mu    sync.Mutex // guards what follows
	wrong time.Duration
	was   []wrong // the oldest first
}

// span is a time, which is not over as long as to is zero.
type span struct{ from, to time.Time }

func (c *wallClock) now() time.Time { return time.Now().Add(c.error()) }

// error returns by how much it is ahead of the right time.
func (c *wallClock) error() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wrong
}

// step sets it forward, or back.
func (c *wallClock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(c.wrong + d)
}

// set has it be wrong by so much. Whoever calls holds the mutex.
func (c *wallClock) set(by time.Duration) {
	if by == c.wrong {
		return
	}
	if c.wrong != 0 {
		c.was[len(c.was)-1].to = time.Now()
	}
	if by != 0 {
		c.was = append(c.was, wrong{span{from: time.Now()}, by})
	}
	c.wrong = by
}

// wasWrong returns when it was wrong, and by how much.
func (c *wallClock) wasWrong() []wrong {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.was)
}

// right sets it right.
func (c *wallClock) right() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(0)
}

// exits is a process that ends at once, with that code.
func exits(code int) script {
	return func(s runner.Spec) fakerunner.Behaviour {
		return fakerunner.Behaviour{Duration: time.Second, ExitCode: code, Output: []fakerunner.Chunk{{Data: []byte(s.ID)}}}
	}
}

// decided returns how the occurrences of a job's only trigger were decided.
func (w *world) decided(name string) (ran, missed int64) {
	w.Helper()
	v := w.verdicts(name)
	if len(v) != 1 {
		w.Fatalf("%s has %d triggers, want 1", name, len(v))
	}
	return v[0].GetRan(), v[0].GetMissed()
}

// The clock of a primary that is alone is set. What lies between when it is set forward
// is decided at once and once, as the job says; what was decided when it is set back is
// not decided again. What waits goes on to wait for as long as it would have: an hour
// that nobody has lived through counts neither for nor against it.
func TestClockIsSet(t *testing.T) {
	const hour, second = time.Hour, time.Second
	for name, test := range map[string]struct {
		by           time.Duration
		latest, none [2]int64 // that ran and were missed meanwhile, by catch_up
		all          int64    // that ran
	}{
		"forward by an hour":   {hour, [2]int64{1, 59}, [2]int64{1, 59}, 60},
		"forward by a second":  {second, [2]int64{}, [2]int64{}, 0},
		"back by a second":     {-second, [2]int64{}, [2]int64{}, 0},
		"back by an hour":      {-hour, [2]int64{}, [2]int64{}, 0},
		"back by half an hour": {-hour / 2, [2]int64{}, [2]int64{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				shop(w)
				w.define(job("latest", cron("* * * * *", ""), overlapAllowed))
				w.define(job("all", cron("* * * * *", ""), overlapAllowed, policy(&schedv1.Policy{CatchUp: schedv1.CatchUp_CATCH_UP_ALL})))
				w.define(job("none", cron("* * * * *", ""), overlapAllowed, policy(&schedv1.Policy{CatchUp: schedv1.CatchUp_CATCH_UP_NONE})))
				w.does("again", exits(1))
				w.define(job("again", policy(&schedv1.Policy{Retry: &schedv1.Retry{MaxAttempts: 2, InitialDelay: seconds(100)}})))
				w.define(job("nowhere", selector("zone=mars"), policy(&schedv1.Policy{QueueTimeout: seconds(100)})))
				w.takes("long", time.Hour)
				w.define(job("long", policy(&schedv1.Policy{TotalTimeout: seconds(100)})))
				w.waitUntil(time.Now().Truncate(time.Minute).Add(10*time.Minute + 30*time.Second))

				before := map[string][2]int64{}
				for _, name := range []string{"latest", "all", "none"} {
					ran, missed := w.decided(name)
					before[name] = [2]int64{ran, missed}
				}
				meanwhile := func(name string) [2]int64 {
					ran, missed := w.decided(name)
					return [2]int64{ran - before[name][0], missed - before[name][1]}
				}
				again, nowhere, long := w.run("again"), w.run("nowhere"), w.run("long")
				w.wait(5 * time.Second)
				w.clock.step(test.by)
				w.wait(2 * time.Second)
				if is := meanwhile("latest"); is != test.latest {
					w.Errorf("the job that wants the latest has %v runs and misses, want %v", is, test.latest)
				}
				if is := meanwhile("none"); is != test.none {
					w.Errorf("the job that wants none has %v runs and misses, want %v", is, test.none)
				}
				w.wait(80 * time.Second)
				phase := func(r *schedv1.Run, want schedv1.Phase) {
					w.Helper()
					if r := w.get(r.GetId()); r.GetPhase() != want {
						w.Errorf("the run of %s is %v (%s), want %v", r.GetJob(), r.GetPhase(), r.GetReason(), want)
					}
				}
				phase(again, schedv1.Phase_PHASE_PENDING)
				phase(nowhere, schedv1.Phase_PHASE_PENDING)
				phase(long, schedv1.Phase_PHASE_RUNNING)
				w.wait(30 * time.Second)
				phase(again, schedv1.Phase_PHASE_FAILED)
				phase(nowhere, schedv1.Phase_PHASE_TIMED_OUT)
				phase(long, schedv1.Phase_PHASE_TIMED_OUT)
				if n := len(w.get(again.GetId()).GetAttempts()); n != 2 {
					w.Errorf("it was tried %d times, want 2", n)
				}
				w.wait(2 * time.Minute) // all are paced
				if ran := meanwhile("all")[0]; ran < test.all {
					w.Errorf("of the job that wants all %d ran, want %d", ran, test.all)
				}

				// When as much time has passed as it was set back, things go on as ever.
				w.wait(max(-test.by, 0))
				ran, _ := w.decided("latest")
				w.wait(10 * time.Minute)
				if now, _ := w.decided("latest"); now-ran != 10 {
					w.Errorf("in ten minutes %d ran, want 10", now-ran)
				}
				w.check()
			})
		})
	}
}

// A clock was an hour ahead for a moment, and that hour is decided for one job. Others go
// on, whoever changes them meanwhile; and what is said to come next does.
func TestJobsAfterAClockThatWasAhead(t *testing.T) {
	story(t, func(w *world) {
		shop(w)
		w.define(job("there", cron("* * * * *", ""), overlapAllowed))
		w.waitUntil(time.Now().Truncate(time.Minute).Add(2*time.Minute + 30*time.Second))
		w.clock.step(time.Hour)
		w.wait(5 * time.Second)
		w.clock.right()
		w.wait(5 * time.Second)
		w.define(job("new", cron("* * * * *", ""), overlapAllowed))
		changed := job("new", cron("* * * * *", ""), overlapAllowed)
		changed.Description = "runs each minute"
		w.define(changed)
		w.wait(5 * time.Minute)
		if ran, missed := w.decided("new"); ran != 5 || missed != 0 {
			w.Errorf("in five minutes the new job ran %d times, and %d were missed", ran, missed)
		}
		if !strings.Contains(w.tail.String(), "what is decided until then does not come due again") {
			w.Errorf("nobody has said that the clock was ahead")
		}
		ran, _ := w.decided("there")
		var next time.Time
		for _, j := range w.jobs() {
			if j.GetName() == "there" {
				next = j.GetNextTime().AsTime()
			}
		}
		w.waitUntil(next.Add(-time.Second))
		if now, _ := w.decided("there"); now != ran {
			w.Errorf("it was said to come next at %v, and ran %d times before", next, now-ran)
		}
		w.wait(2 * time.Second)
		if now, _ := w.decided("there"); now != ran+1 {
			w.Errorf("it was said to come next at %v, and ran %d times", next, now-ran)
		}
		w.check()
	})
}

// A clock was 500 days ahead for more than a minute, and is right again; or it is not. The
// past is there for as long as it would have been: what was deleted could not be had back.
func TestPastOutlivesAWrongClock(t *testing.T) {
	for name, righted := range map[string]bool{"righted": true, "not righted": false} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				shop(w)
				w.define(job("j"))
				w.define(job("hourly", cron("0 * * * *", ""), policy(&schedv1.Policy{CatchUp: schedv1.CatchUp_CATCH_UP_NONE})))
				r := w.run("j")
				w.wait(5 * time.Hour)
				since := w.verdicts("hourly")[0].GetStartTime().AsTime()
				w.clock.step(500 * 24 * time.Hour)
				w.wait(70 * time.Second)
				if righted {
					w.clock.right()
				}
				w.wait(130 * time.Minute) // two sweeps
				if r := w.get(r.GetId()); r.GetPhase() != schedv1.Phase_PHASE_SUCCEEDED {
					w.Errorf("the run is %v", r.GetPhase())
				}
				if is := w.verdicts("hourly")[0].GetStartTime().AsTime(); !is.Equal(since) {
					w.Errorf("the ledger began at %v, and now at %v", since, is)
				}
			})
		})
	}
}

// The clock of the primary that leads is set. Nobody takes that amiss when it is by a
// second. When it is by an hour, the leadership goes to one whose clock is right; what
// was decided meanwhile was decided once, and what waits does not wait for longer.
func TestLeadersClockIsSet(t *testing.T) {
	for name, by := range map[string]time.Duration{
		"forward by an hour": time.Hour, "forward by a second": time.Second,
		"back by a second": -time.Second, "back by an hour": -time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				w.startGroup(3)
				w.startWorker("shop-1", nil, 4)
				w.awaitOnline()
				w.define(job("often", cron("0,30 * * * * *", ""), overlapAllowed))
				w.does("again", exits(1))
				w.define(job("again", policy(&schedv1.Policy{Retry: &schedv1.Retry{MaxAttempts: 2, InitialDelay: seconds(100)}})))
				w.wait(10 * time.Minute)
				epoch := w.known("shop-1").GetSessionEpoch()
				r := w.run("again")
				w.wait(5 * time.Second)
				m := w.awaitLeader()
				m.clock.step(by)
				w.wait(30 * time.Second)
				if moved := w.awaitLeader() != m; moved != (by.Abs() > time.Minute) {
					w.Errorf("another primary leads: %v", moved)
				}
				w.wait(90 * time.Second)
				if r := w.get(r.GetId()); r.GetPhase() != schedv1.Phase_PHASE_FAILED || len(r.GetAttempts()) != 2 {
					w.Errorf("the run that is tried twice is %v (%s) after %d attempts", r.GetPhase(), r.GetReason(), len(r.GetAttempts()))
				}
				if is := w.known("shop-1").GetSessionEpoch(); is != epoch {
					w.Errorf("the session of the worker was cut: %x, and now %x", epoch, is)
				}
				w.wait(max(by, 0)) // that hour is decided
				ran, _ := w.decided("often")
				w.wait(10 * time.Minute)
				if now, _ := w.decided("often"); now-ran != 20 {
					w.Errorf("in ten minutes %d ran, want 20", now-ran)
				}
				m.clock.right()
				w.wait(time.Minute)
				w.check()
			})
		})
	}
}

// The clock of the primary that leads is an hour ahead until the leadership goes to one
// whose clock is right. That hour nobody has lived through, and the new leader knows it:
// what waits or runs is not given up for having taken an hour, and is when its time has
// passed.
func TestHandoverFromAClockThatWasAhead(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		w.startWorker("shop-1", nil, 4)
		w.awaitOnline()
		w.takes("long", 4*time.Hour)
		w.define(job("long", policy(&schedv1.Policy{TotalTimeout: seconds(1800)})))
		w.define(job("nowhere", selector("zone=mars"), policy(&schedv1.Policy{QueueTimeout: seconds(1800)})))
		w.does("again", exits(1))
		w.define(job("again", policy(&schedv1.Policy{Retry: &schedv1.Retry{MaxAttempts: 2, InitialDelay: seconds(1500), MaxDelay: seconds(1500)}})))
		w.define(job("often", cron("0,30 * * * * *", ""), overlapAllowed))
		w.wait(2 * time.Minute)
		long, nowhere, again := w.run("long"), w.run("nowhere"), w.run("again")
		w.wait(30 * time.Second)
		m := w.awaitLeader()
		m.clock.step(time.Hour)
		w.wait(40 * time.Second)
		if w.awaitLeader() == m {
			w.Fatalf("%s still leads", m.id)
		}
		phase := func(r *schedv1.Run, want schedv1.Phase) {
			w.Helper()
			if r := w.get(r.GetId()); r.GetPhase() != want {
				w.Errorf("the run of %s is %v (%s), want %v", r.GetJob(), r.GetPhase(), r.GetReason(), want)
			}
		}
		for range 2 { // the hour is known to who leads after that one, too
			w.wait(time.Minute)
			phase(long, schedv1.Phase_PHASE_RUNNING)
			phase(nowhere, schedv1.Phase_PHASE_PENDING)
			phase(again, schedv1.Phase_PHASE_PENDING)
			m.clock.right()
			must[*schedv1.TransferLeadershipResponse](w)(w.primary.clusters.TransferLeadership(w.Context(), &schedv1.TransferLeadershipRequest{}))
		}
		w.wait(35 * time.Minute)
		phase(long, schedv1.Phase_PHASE_TIMED_OUT)
		phase(nowhere, schedv1.Phase_PHASE_TIMED_OUT)
		phase(again, schedv1.Phase_PHASE_FAILED)
		w.check()
	})
}

// A primary whose clock is an hour off does not lead for long, and does no harm while
// it follows.
func TestFollowersClockIsOff(t *testing.T) {
	for name, by := range map[string]time.Duration{"ahead": time.Hour, "behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				w.startGroup(3)
				w.startWorker("shop-1", nil, 4)
				w.awaitOnline()
				m := w.follower()
				m.clock.step(by)
				w.define(job("often", cron("0,30 * * * * *", ""), overlapAllowed))
				w.wait(10 * time.Minute)
				if ran, missed := w.decided("often"); ran < 20 || missed != 0 {
					w.Errorf("%d ran and %d were missed", ran, missed)
				}
				must[*schedv1.TransferLeadershipResponse](w)(w.primary.clusters.TransferLeadership(w.Context(), &schedv1.TransferLeadershipRequest{Id: m.id}))
				w.wait(30 * time.Second)
				if w.awaitLeader() == m {
					w.Errorf("%s still leads", m.id)
				}
				w.wait(max(by, 0))
				ran, _ := w.decided("often")
				w.wait(10 * time.Minute)
				if now, _ := w.decided("often"); now-ran != 20 {
					w.Errorf("in ten minutes %d ran, want 20", now-ran)
				}
				w.check()
			})
		})
	}
}

// The primary that leads stands still for ten minutes. The others go on without it, and
// when it is back it does not decide again.
func TestLeaderIsSuspended(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		w.startWorker("shop-1", nil, 4)
		w.awaitOnline()
		w.define(job("often", cron("0,30 * * * * *", ""), overlapAllowed))
		w.wait(10 * time.Minute)
		m := w.awaitLeader()
		before, _ := w.decided("often")
		m.suspend()
		w.wait(10 * time.Minute)
		during, missed := w.decided("often")
		m.resume()
		if during-before < 18 || missed != 0 {
			w.Errorf("meanwhile %d ran, and %d were missed", during-before, missed)
		}
		w.wait(10 * time.Minute)
		if after, _ := w.decided("often"); after-during != 20 {
			w.Errorf("in the ten minutes after that %d ran, want 20", after-during)
		}
		w.check()
		w.checkEverywhere()
	})
}

// A worker stands still for ten minutes, with all that runs on it. Its clock goes on,
// so what it tells of its processes then lies ten minutes apart. What it ran counts as
// lost after its time, unless the job waits; nothing is started twice.
func TestWorkerIsSuspended(t *testing.T) {
	for name, onLost := range map[string]schedv1.OnLost{"fail": schedv1.OnLost_ON_LOST_FAIL, "retry": schedv1.OnLost_ON_LOST_RETRY, "wait": schedv1.OnLost_ON_LOST_WAIT} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				k := shop(w)
				w.does("j", talker(12*time.Minute, 10*time.Second))
				w.define(job("j", policy(&schedv1.Policy{OnLost: onLost})))
				r := w.run("j")
				w.wait(time.Minute)
				k.suspend()
				w.wait(10 * time.Minute)
				k.resume()
				w.wait(10 * time.Minute)
				r = w.get(r.GetId())
				switch onLost {
				case schedv1.OnLost_ON_LOST_WAIT:
					w.ended(r, schedv1.Phase_PHASE_RUNNING, 0)
					w.wait(2 * time.Minute)
					w.ended(w.get(r.GetId()), schedv1.Phase_PHASE_SUCCEEDED, succeeded)
				case schedv1.OnLost_ON_LOST_RETRY:
					w.ended(r, schedv1.Phase_PHASE_RUNNING, lost, 0)
				default:
					w.ended(r, schedv1.Phase_PHASE_LOST, lost)
				}
				w.check()
			})
		})
	}
}

// A leader's clock is set back, and a job is changed before anybody has noticed: the clock of
// the state stands, and what was decided was decided by the new definition.
func TestJobIsChangedAsAClockIsSetBack(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		w.startWorker("shop-1", nil, 4)
		w.awaitOnline()
		w.takes("j", time.Second)
		w.define(job("j", every(20*time.Second)))
		w.wait(time.Minute)
		m := w.awaitLeader()
		w.run("j")
		m.clock.step(-2500 * time.Millisecond)
		w.wait(100 * time.Millisecond)
		w.define(job("j", at(time.Now().Truncate(time.Second).Add(2*time.Minute))))
		w.wait(30 * time.Second)
		m.clock.right()
		w.wait(2 * time.Minute)
		w.checkEverywhere()
	})
}

// A worker stands still with what has a lease, and another one begins in its place. When it
// goes on the lease is long over: what ran there does nothing more, and is killed.
func TestLeaseOfASuspendedWorker(t *testing.T) {
	story(t, func(w *world) {
		k := shop(w)
		w.does("j", talker(15*time.Minute, time.Second))
		w.define(w.leased(job("j", policy(leases()))))
		r := w.run("j")
		w.wait(time.Minute)
		w.startWorker("shop-2", nil, 4)
		w.awaitOnline()
		k.suspend()
		halted := time.Now()
		w.wait(10 * time.Minute)
		k.resume()
		woken := time.Now()
		w.wait(20 * time.Minute)
		w.ended(w.get(r.GetId()), schedv1.Phase_PHASE_SUCCEEDED, lost, succeeded)
		lives := w.lives(map[string]bool{r.GetId(): true})[r.GetId()]
		if len(lives) != 2 || !lives[0].To.Equal(woken) || !lives[1].From.After(halted.Add(time.Minute)) || !lives[1].From.Before(woken) {
			t.Fatalf("it stood still from %v to %v, and what ran is %+v", halted, woken, lives)
		}
		a := alive{Life: lives[0]}
		if worked := halted.Sub(a.From); a.took() != worked || !a.end().Equal(halted) || !a.at(worked+time.Second).Equal(woken.Add(time.Second)) {
			t.Errorf("it is taken to have run for %v, until %v", a.took(), a.end())
		}
		w.check()
	})
}

// The clock of a worker is set while something runs there. That is told as that clock
// has it; how long it may take, and when its worker counts as silent, is not measured
// by it.
func TestWorkersClockIsSet(t *testing.T) {
	for name, by := range map[string]time.Duration{
		"forward by an hour": time.Hour, "forward by a second": time.Second,
		"back by a second": -time.Second, "back by an hour": -time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				k := shop(w)
				w.takes("j", 10*time.Minute)
				w.define(job("j", policy(&schedv1.Policy{Timeout: seconds(20 * 60)})))
				w.takes("endless", 24*time.Hour)
				w.define(job("endless", policy(&schedv1.Policy{Timeout: seconds(5 * 60)})))
				r, endless := w.run("j"), w.run("endless")
				w.wait(time.Minute)
				epoch := w.known(k.name).GetSessionEpoch()
				k.clock.step(by)
				w.wait(3*time.Minute + 50*time.Second)
				if r := w.get(endless.GetId()); r.GetPhase() != schedv1.Phase_PHASE_RUNNING {
					w.Errorf("the one with a timeout of five minutes is %v after less (%s)", r.GetPhase(), r.GetReason())
				}
				w.wait(20 * time.Second)
				w.ended(w.get(endless.GetId()), schedv1.Phase_PHASE_TIMED_OUT, schedv1.Outcome_OUTCOME_TIMED_OUT)
				w.wait(6 * time.Minute)
				r = w.get(r.GetId())
				w.ended(r, schedv1.Phase_PHASE_SUCCEEDED, succeeded)
				if is := w.known(k.name).GetSessionEpoch(); is != epoch {
					w.Errorf("the session was cut: %x, and now %x", epoch, is)
				}
				w.check()
			})
		})
	}
}
