package crew_test

import (
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/agent/crew"
)

// All that is given to do begins at once, and Rest waits for it.
func TestAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := crew.New(4)
		began := time.Now()
		var done atomic.Int64
		for range 3 {
			for range 100 {
				c.Go(func() {
					time.Sleep(time.Second)
					done.Add(1)
				})
			}
			time.Sleep(2 * time.Second)
		}
		c.Go(func() {
			time.Sleep(time.Minute)
			done.Add(1)
		})
		c.Rest()
		if took := time.Since(began); took != 66*time.Second || done.Load() != 301 {
			t.Errorf("%d were done in %v, want 301 in 66s", done.Load(), took)
		}
	})
}

// Some of those who have done something are there for what comes next, and no more.
func TestSomeAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := crew.New(4)
		before := runtime.NumGoroutine()
		for range 100 {
			c.Go(func() { time.Sleep(time.Second) })
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if kept := runtime.NumGoroutine() - before; kept != 4 {
			t.Errorf("%d are kept, want 4", kept)
		}
		for range 10 {
			c.Go(func() {})
			synctest.Wait()
			if n := runtime.NumGoroutine() - before; n != 4 {
				t.Errorf("then there are %d", n)
			}
		}
		c.Rest()
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n != 0 {
			t.Errorf("%d are left", n)
		}
	})
}

// Whoever is dismissed amid work does it, and what is given to do later is done, too. Nobody
// stays.
func TestDismissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := crew.New(4)
		before := runtime.NumGoroutine()
		var done atomic.Int64
		work := func() {
			time.Sleep(time.Second)
			done.Add(1)
		}
		for range 10 {
			c.Go(work)
		}
		c.Dismiss()
		c.Go(work)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n != 0 || done.Load() != 11 {
			t.Errorf("%d were done, and %d stay; want 11, and none", done.Load(), n)
		}
	})
}
