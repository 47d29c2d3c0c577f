package remote

import (
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
)

// How an attempt ended is on record in the moment in which it has, also while many end in
// quick succession and telling it waits for others: it outlives a kill of agent and runner.
func TestEndsAreOnRecordAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const attempts = 12
		fake := fakerunner.New(func(s runner.Spec) fakerunner.Behaviour { return fakerunner.Behaviour{Duration: s.Timeout} })
		defer fake.Close()
		log := slog.New(slog.DiscardHandler)
		p := new(pad)
		k := newKeeper(log, fake, &book{log: log, journal: p})
		if _, err := k.take(1, 1); err != nil {
			t.Fatal(err)
		}
		for i := range attempts {
			if _, err := k.start(asker{life: 1}, runner.Spec{ID: fmt.Sprint(i), Timeout: time.Duration(i+1) * time.Millisecond}); err != nil {
				t.Fatal(err)
			}
		}
		for ended := 1; ended <= attempts; ended++ {
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if got := len(p.all()); got != 2*ended { // that it was started, and how it ended
				t.Errorf("when %d have ended, %d records are there", ended, got)
			}
		}
		close(k.over)
		k.rest()
	})
}
