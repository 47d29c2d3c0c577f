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
		id := fmt.Sprint("behind-", i)
		p.inbox.Attach(peer.Session{Worker: id, Epoch: 1, Gateway: "p", Hello: &agentv1.Hello{Name: id, Slots: 100}, Connected: time.Now()})
		p.inbox.Report(id, 1, &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Inventory{Inventory: &agentv1.Inventory{}}})
	}
}

// lose ends the sessions of the crowd, one each so often, for so long.
func (p *primary) lose(workers int, each time.Duration) {
	for i := range workers {
		p.inbox.Detach(fmt.Sprint("behind-", i), 1)
		time.Sleep(each)
	}
}

// A load balancer takes all its workers away at once. The leader hears of that one after
// the other, and gives nothing to those that it has not heard of yet: a run that is asked
// for meanwhile is given to a worker that is still there, as soon as the wave is over.
func TestGivesNothingIntoAWave(t *testing.T) {
	asking(t, time.Hour, overlap(state.OverlapSkip), func(t *testing.T, p *primary) {
		const workers = 200
		p.crowd(workers)
		synctest.Wait()
		ends := time.Now().Add(workers * 5 * time.Millisecond)
		p.hand.wg.Go(func() { p.lose(workers, 5*time.Millisecond) })
		time.Sleep(400 * time.Millisecond)
		if a, err := p.ask("x"); err != nil || a.Err != nil || a.Run.Phase != state.Pending {
			t.Fatalf("%+v, %v", a, err)
		}
		time.Sleep(time.Until(ends))
		if r := p.runs()[0]; r.Phase != state.Pending {
			t.Errorf("run %v is %v with %+v, want it to wait", r.ID, r.Phase, r.Attempts)
		}
		time.Sleep(waveGap + 10*time.Millisecond)
		if r := p.runs()[0]; r.Phase == state.Pending || r.Live().Worker != "w-1" {
			t.Errorf("run %v is %v with %+v, want it to be of the worker that is there", r.ID, r.Phase, r.Attempts)
		}
	})
}

// Sessions that end without an end hold up no run for longer than a moment.
func TestAWaveWithoutEnd(t *testing.T) {
	asking(t, time.Hour, overlap(state.OverlapSkip), func(t *testing.T, p *primary) {
		const workers = 1000
		p.crowd(workers)
		synctest.Wait()
		p.hand.wg.Go(func() { p.lose(workers, 20*time.Millisecond) })
		time.Sleep(time.Second)
		if _, err := p.ask("x"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(waveMost - time.Second + 10*time.Millisecond)
		if r := p.runs()[0]; r.Phase == state.Pending {
			t.Errorf("run %v still waits after %v", r.ID, waveMost)
		}
	})
}

// A few sessions that end, as they always do, hold up nobody.
func TestSomeEndsAreNoWave(t *testing.T) {
	asking(t, time.Hour, overlap(state.OverlapSkip), func(t *testing.T, p *primary) {
		p.crowd(waveMany + 10)
		synctest.Wait()
		p.lose(waveMany-1, 0)
		synctest.Wait()
		if _, err := p.ask("x"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if r := p.runs()[0]; r.Phase == state.Pending {
			t.Errorf("run %v waits", r.ID)
		}
	})
}
