package raftstore

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Callers who do one thing after the other come to share entries, however they began.
func TestCallersShareEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		s := alone(t, m)
		const callers, calls, write, pause = 8, 50, time.Millisecond, 200 * time.Microsecond
		m.BeforeWrite(func() { time.Sleep(write) })
		before := s.Stats().Entries
		var all sync.WaitGroup
		for c := range callers {
			all.Go(func() {
				time.Sleep(time.Duration(c) * pause)
				for i := range calls {
					if _, err := s.Propose(context.Background(), putWorker(c*calls+i)); err != nil {
						t.Error(err)
					}
					time.Sleep(pause)
				}
			})
		}
		all.Wait()
		if n := s.Stats().Entries - before; n > calls*5/4 {
			t.Errorf("%d callers made %d entries of %d proposals each, want hardly more than %d", callers, n, calls, calls)
		}
	})
}

// Who is not coming back is waited for once, and for no longer than it takes to write an
// entry, nor for ever on a slow disk.
func TestCompanyThatDoesNotCome(t *testing.T) {
	for _, tt := range []struct{ write, wait time.Duration }{
		{time.Millisecond, time.Millisecond},
		{time.Second, longestWait},
	} {
		t.Run(tt.write.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := NewMemory()
				s := alone(t, m)
				m.BeforeWrite(func() { time.Sleep(tt.write) })
				var all sync.WaitGroup
				all.Go(func() { propose(t, s, putWorker(0)) })
				time.Sleep(tt.write / 2)
				for i := range enoughCompany - 1 { // they share an entry: it is made when this one is written
					all.Go(func() { propose(t, s, putWorker(i+1)) })
				}
				all.Wait()
				for i, want := range []time.Duration{tt.wait + tt.write, tt.write} {
					begin := time.Now()
					propose(t, s, putWorker(enoughCompany+i))
					if took := time.Since(begin); took != want {
						t.Errorf("call %d after the others have gone took %v, want %v", i+1, took, want)
					}
				}
			})
		})
	}
}
