package lead

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// What trickles in shares entries, and who asks does not wait for that.
func TestTrickleSharesEntries(t *testing.T) {
	asking(t, 100*time.Millisecond, overlap(state.OverlapAllow), func(t *testing.T, p *primary) {
		for i := range 100 { // each of them ends at another millisecond
			asked := time.Now()
			if a, err := p.ask(fmt.Sprint(i)); err != nil || a.Err != nil {
				t.Fatalf("%+v, %v", a, err)
			}
			if d := time.Since(asked); d != 0 {
				t.Errorf("the answer came after %v", d)
			}
			synctest.Wait()
			if n, _, _, _ := p.hand.counts(); n != i+1 {
				t.Fatalf("%d attempts were started, want %d: at once", n, i+1)
			}
			time.Sleep(time.Millisecond)
		}
		before := p.store.Stats()
		time.Sleep(200 * time.Millisecond)
		after := p.store.Stats()
		if n := after.Entries - before.Entries; n < 10 || n > 25 {
			t.Errorf("%d entries for a hundred runs that have ended within 100 ms, want about one in %v", n, company)
		}
		for _, r := range p.runs() {
			if r.Phase != state.Succeeded {
				t.Errorf("run %v is %v", r.ID, r.Phase)
			}
		}
	})
}

// The first report after a pause is taken at once, and so are all while a run waits for
// what they may make free.
func TestReportsThatDoNotWait(t *testing.T) {
	asking(t, 7*time.Millisecond, overlap(state.OverlapQueue), func(t *testing.T, p *primary) {
		began := time.Now()
		for i := range 10 {
			if a, err := p.ask(fmt.Sprint(i)); err != nil || a.Err != nil {
				t.Fatalf("%+v, %v", a, err)
			}
		}
		for p.runs()[9].Phase != state.Succeeded {
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		if took := time.Since(began); took > 10*7*time.Millisecond+company {
			t.Errorf("ten runs of 7ms, one after the other, took %v", took)
		}
	})
}
