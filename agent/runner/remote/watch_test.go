package remote

import (
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/agent/gather"
	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
)

// How an attempt ended is told at once, unless many end in quick succession: then it waits
// for some of them, and never for long.
func TestNewsGather(t *testing.T) {
	const pause = 2 * time.Second // between two tries
	for _, c := range []struct {
		name  string
		ended []time.Duration // when attempts end
		told  []time.Duration // when the agent is woken
	}{
		{"one", ms(0), ms(0)},
		{"seldom", ms(0, 10, 20, 30, 40, 50), ms(0, 10, 20, 30, 40, 50)},
		{"a stream", ms(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), ms(0, 1, 2, 3, 7, 11)},
		{"the end of a stream", ms(0, 1, 2, 3, 4, 5), ms(0, 1, 2, 3, 9)},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ends := map[string]time.Duration{}
				for i, at := range c.ended {
					ends[fmt.Sprint(i)] = pause + at
				}
				fake := fakerunner.New(func(s runner.Spec) fakerunner.Behaviour { return fakerunner.Behaviour{Duration: ends[s.ID]} })
				defer fake.Close()
				log := slog.New(slog.DiscardHandler)
				k := newKeeper(log, fake, &book{log: log, journal: new(pad)})
				w, err := k.take(1, 0)
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now().Add(pause)
				for id := range ends {
					if _, err := k.start(asker{life: 1}, runner.Spec{ID: id}); err != nil {
						t.Fatal(err)
					}
				}
				k.news(w)
				heard := 0
				for _, at := range c.told {
					<-w.wake
					if got := time.Since(began); got != at {
						t.Errorf("woken after %v, want %v", got, at)
					}
					synctest.Wait()
					heard += len(k.news(w))
				}
				if heard != len(c.ended) {
					t.Errorf("told of %d ends, want %d", heard, len(c.ended))
				}
				k.rest()
				select {
				case <-w.wake:
					t.Error("woken again")
				case <-time.After(2 * gather.Longest):
				}
			})
		})
	}
}

func ms(all ...int) (at []time.Duration) {
	for _, n := range all {
		at = append(at, time.Duration(n)*time.Millisecond)
	}
	return at
}
