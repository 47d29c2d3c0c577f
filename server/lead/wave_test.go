package lead

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/peer"
)

// crowd connects so many workers beside the hand, which come before it by their names.
func (p *primary) crowd(workers int) {
	for i := range workers {
		p.connect(fmt.Sprint("behind-", i), 1, "p")
	}
}

// connect connects a worker that takes what it is given, and tells nothing of it.
func (p *primary) connect(id string, epoch uint64, gateway string) {
	p.inbox.Attach(peer.Session{Worker: id, Epoch: epoch, Gateway: gateway, Hello: &agentv1.Hello{Name: id, Slots: 100}, Connected: time.Now()})
	p.inbox.Report(id, epoch, &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Inventory{Inventory: &agentv1.Inventory{}}})
}

// lose ends the sessions of some of the crowd, one each so often.
func (p *primary) lose(from, to int, each time.Duration) {
	for i := from; i < to; i++ {
		p.inbox.Detach(fmt.Sprint("behind-", i), 1)
		time.Sleep(each)
	}
}

// asked asks for a run, and returns what has become of it after a while.
func (p *primary) asked(name string, wait time.Duration) *state.Run {
	p.t.Helper()
	a, err := p.ask(name)
	if err != nil || a.Err != nil {
		p.t.Fatalf("%+v, %v", a, err)
	}
	time.Sleep(wait)
	for _, r := range p.runs() {
		if r.ID == a.Run.ID {
			return r
		}
	}
	p.t.Fatalf("run %v is gone", a.Run.ID)
	return nil
}

// given is whom a run was given to, "" if to nobody.
func given(r *state.Run) state.WorkerID {
	if live := r.Live(); live != nil {
		return live.Worker
	}
	return ""
}

// A load balancer takes all its workers away at once. The leader hears of that one after
// the other, and with pauses when it is busy, and gives nothing to those that it has not
// heard of yet: a run that is asked for meanwhile is given to a worker that is still there,
// as soon as the wave is over.
func TestGivesNothingIntoAWave(t *testing.T) {
	asking(t, time.Hour, overlap(state.OverlapAllow), func(t *testing.T, p *primary) {
		const workers, each, pause = 200, 50, 400 * time.Millisecond
		p.crowd(workers)
		synctest.Wait()
		for from := 0; from < workers; from += each {
			p.lose(from, from+each, time.Millisecond)
			if r := p.asked(fmt.Sprint("x", from), pause); given(r) != "" {
				t.Errorf("run %v was given to %s, want it to wait", r.ID, given(r))
			}
		}
		time.Sleep(pause)
		for _, r := range p.runs() {
			if given(r) != "w-1" {
				t.Errorf("run %v was given to %q, want it to be of the worker that is there", r.ID, given(r))
			}
		}
	})
}

// Who comes back while others still leave is there, and is given what waits at once. One that
// says something is not given it: it may be cut in the next moment.
func TestWhoIsThereDuringAWave(t *testing.T) {
	asking(t, time.Hour, overlap(state.OverlapAllow), func(t *testing.T, p *primary) {
		p.crowd(2 * waveMany)
		synctest.Wait()
		p.lose(0, waveMany, 0)
		p.hand.tell()
		if r := p.asked("x", 10*time.Millisecond); given(r) != "" {
			t.Errorf("run %v was given to %s, want it to wait", r.ID, given(r))
		}
		p.connect("behind-0", 2, "p")
		time.Sleep(10 * time.Millisecond)
		if r := p.runs()[0]; given(r) != "behind-0" {
			t.Errorf("run %v was given to %q, want the worker that is back", r.ID, given(r))
		}
	})
}

// When a primary stops, its workers leave. Those of the others go on.
func TestWaveAtOneGateway(t *testing.T) {
	asking(t, time.Hour, overlap(state.OverlapAllow), func(t *testing.T, p *primary) {
		p.crowd(2 * waveMany)
		p.connect("elsewhere", 1, "q")
		synctest.Wait()
		p.lose(0, waveMany, 0)
		if r := p.asked("x", 10*time.Millisecond); given(r) != "elsewhere" {
			t.Errorf("run %v was given to %q, want the worker of a gateway that loses none", r.ID, given(r))
		}
	})
}

// What a worker said of itself holds when the doubt is over: one that takes nothing is
// given nothing.
func TestTroubleOutlivesAWave(t *testing.T) {
	asking(t, time.Hour, overlap(state.OverlapAllow), func(t *testing.T, p *primary) {
		p.crowd(waveMany)
		synctest.Wait()
		p.hand.set(func() { p.hand.trouble = "the disk is full" })
		p.hand.tell()
		p.lose(0, waveMany, 0)
		if r := p.asked("x", 2*waveGap); given(r) != "" {
			t.Errorf("run %v was given to %s, which takes none", r.ID, given(r))
		}
		p.hand.set(func() { p.hand.trouble = "" })
		p.hand.tell()
		time.Sleep(10 * time.Millisecond)
		if r := p.runs()[0]; given(r) != "w-1" {
			t.Errorf("run %v was given to %q, want the worker that takes attempts again", r.ID, given(r))
		}
	})
}

// Sessions that end without an end hold up no run for longer than a moment, and that once.
func TestAWaveWithoutEnd(t *testing.T) {
	asking(t, time.Hour, overlap(state.OverlapAllow), func(t *testing.T, p *primary) {
		const workers = 1500
		p.crowd(workers)
		synctest.Wait()
		p.hand.wg.Go(func() { p.lose(0, workers, 10*time.Millisecond) })
		time.Sleep(time.Second)
		if r := p.asked("x", waveMost-time.Second); given(r) != "" {
			t.Errorf("run %v was given to %s, want it to wait", r.ID, given(r))
		}
		time.Sleep(time.Second)
		if r := p.runs()[0]; given(r) == "" {
			t.Errorf("run %v still waits after %v", r.ID, waveMost)
		}
		if r := p.asked("y", 10*time.Millisecond); given(r) == "" {
			t.Errorf("run %v waits, in a wave that has lasted for longer than %v", r.ID, waveMost)
		}
	})
}

// A few sessions that end, as they always do, hold up nobody, however long that goes on.
func TestSomeEndsAreNoWave(t *testing.T) {
	asking(t, time.Hour, overlap(state.OverlapAllow), func(t *testing.T, p *primary) {
		const workers = 100
		p.crowd(workers)
		synctest.Wait()
		p.lose(0, waveMany-1, 0)
		if r := p.asked("x", time.Millisecond); given(r) == "" {
			t.Errorf("run %v waits", r.ID)
		}
		time.Sleep(time.Second)
		p.lose(waveMany-1, workers-1, time.Second/waveMany)
		if r := p.asked("y", time.Millisecond); given(r) == "" {
			t.Errorf("run %v waits", r.ID)
		}
	})
}

// After a wave sessions still end now and then. When many of them end once more, that is
// another wave.
func TestAnotherWave(t *testing.T) {
	asking(t, time.Hour, overlap(state.OverlapAllow), func(t *testing.T, p *primary) {
		const some = 70 // that end one by one, within 7 s
		p.crowd(3*waveMany + some)
		synctest.Wait()
		p.lose(0, waveMany, 0)
		p.lose(waveMany, waveMany+some, 100*time.Millisecond)
		if r := p.asked("x", 10*time.Millisecond); given(r) == "" {
			t.Errorf("run %v waits while sessions end now and then", r.ID)
		}
		p.lose(waveMany+some, 2*waveMany+some, 0)
		if r := p.asked("y", 10*time.Millisecond); given(r) != "" {
			t.Errorf("run %v was given to %s, want it to wait", r.ID, given(r))
		}
	})
}
