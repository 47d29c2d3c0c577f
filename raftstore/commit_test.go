package raftstore

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// slow gives all primaries disks that take so long for each write.
func (c *cluster) slow(d time.Duration) {
	for _, m := range c.disks {
		m.BeforeSync(func() { time.Sleep(d) })
	}
}

// An entry is written here first and then by the others. The next one is written here
// meanwhile, so two that follow each other take three writes and not four.
func TestNextEntryIsWrittenMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		s := c.leader()
		time.Sleep(10 * time.Second)
		const write = 100 * time.Millisecond
		c.slow(write)
		begin := time.Now()
		first := make(chan time.Duration, 1)
		go func() {
			propose(t, s, putWorker(1))
			first <- time.Since(begin)
		}()
		time.Sleep(write / 2)
		propose(t, s, putWorker(2))
		if a, b := <-first, time.Since(begin); a/write != 2 || b/write != 3 {
			t.Errorf("the first was agreed after %v, and the second after %v; want 2 and 3 times %v", a, b, write)
		}
		c.agree()
	})
}

// Of a leader that is cut off, nobody knows what becomes of the entries that it has in
// flight. They are no more than some, and what waits behind them is not proposed.
func TestCutOffWithEntriesInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		old := c.leader()
		const write = 20 * time.Millisecond
		c.slow(write)
		c.net.Isolate(old.id)
		const proposals = maxInFlight + 3
		told := make(chan error, proposals)
		for i := range proposals {
			go func() {
				_, err := old.Propose(context.Background(), putWorker(i))
				told <- err
			}()
			time.Sleep(write + write/2)
		}
		unknown, refused := 0, 0
		for range proposals {
			switch err := <-told; {
			case errors.Is(err, ErrUnknown):
				unknown++
			case errors.Is(err, ErrNotLeader):
				refused++
			default:
				t.Errorf("err = %v, want ErrUnknown or ErrNotLeader", err)
			}
		}
		if unknown != maxInFlight || refused != proposals-maxInFlight {
			t.Errorf("of %d it is unknown, and %d were refused; want %d and %d", unknown, refused, maxInFlight, proposals-maxInFlight)
		}
		time.Sleep(10 * time.Second)
		c.agree()
		if n := numWorkers(old); n != 0 {
			t.Errorf("%d workers are there that nobody was told of", n)
		}
	})
}

// What was taken for an entry, and had to wait for the turn, is not put in the log when
// who proposed it has gone meanwhile: the turn may have been that of a new term's beginning,
// behind which nothing of the old one may come.
func TestNothingOfAnOldTermComesBehindANewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newCluster(t).leader()
		s.turn <- struct{}{} // as a new term's beginning does
		ctx, cancel := context.WithCancel(t.Context())
		told := make(chan error, 2)
		go func() {
			_, err := s.Propose(ctx, putWorker(1))
			told <- err
		}()
		go func() {
			_, err := s.Propose(t.Context(), putWorker(2))
			told <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-told; !errors.Is(err, context.Canceled) {
			t.Errorf("who has gone is told %v", err)
		}
		<-s.turn
		if err := <-told; err != nil {
			t.Errorf("who waits is told %v", err)
		}
		time.Sleep(time.Second)
		if n := numWorkers(s); n != 1 {
			t.Errorf("%d workers are on record, want that of who waited", n)
		}
		propose(t, s, putWorker(3)) // and it goes on
	})
}
