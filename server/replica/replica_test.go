package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/server/runlog"
)

// What is acknowledged can be read on any primary, while any one of them is
// down.
func TestReadWhileAnyIsDown(t *testing.T) {
	for _, size := range []int{3, 5} {
		story(t, size, func(t *testing.T, w *world) {
			for i := range 10 {
				k := key(i)
				w.write(w.members[i%size], k, 0, 1000)
				for _, down := range w.members {
					w.kill(down)
					for _, id := range w.members {
						if id != down {
							w.check(id, k, 1000)
						}
					}
					w.start(down)
				}
			}
		})
	}
}

// One primary that is down holds up nobody: two of three are enough. When it is
// back it gets what it has missed.
func TestOneIsDown(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		k := key(1)
		w.write("a", k, 0, 100)
		w.kill("c")
		w.write("a", k, 100, 700_000)
		w.write("b", key(2), 0, 10)
		n := w.start("c")
		w.soon("c has all", 15*time.Second, func() bool { return n.length(k) == 700_000 && n.length(key(2)) == 10 })
		w.holds("c", k, 700_000)
	})
}

// A primary that is stopped, and does not even refuse, holds up those who ask it
// for a second and those who push not at all.
func TestOneIsFrozen(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		w.freeze("c", true)
		begin := time.Now()
		w.write("a", key(1), 0, 100)
		if took := time.Since(begin); took > linger {
			t.Errorf("the first output took %v", took)
		}
		begin = time.Now()
		w.write("a", key(1), 100, 200)
		if took := time.Since(begin); took > 0 {
			t.Errorf("more output took %v", took)
		}
		for _, k := range []runlog.Key{key(2), key(3)} {
			begin = time.Now()
			w.write("a", k, 0, 100)
			if took := time.Since(begin); took > 0 {
				t.Errorf("output of another attempt took %v, when it was known already that c is silent", took)
			}
			time.Sleep(2 * askWithin)
		}
		w.freeze("c", false)
		w.soon("c has all", 20*time.Second, func() bool {
			return w.nodes["c"].length(key(1)) == 200 && w.nodes["c"].length(key(3)) == 100
		})
	})
}

// Without a second primary nothing is durable. Who waits is told within five
// seconds, and by name; the next ones are told at once; and when one is back it
// goes on from where it was.
func TestNoSecondPrimary(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		a, k := w.nodes["a"], key(1)
		w.write("a", k, 0, 100)
		w.kill("b")
		w.kill("c")
		if known, err := a.send(k, 100, 200); err != nil || known != 200 {
			t.Fatalf("append: %d, %v", known, err)
		}
		begin := time.Now()
		durable, err := a.Sync(t.Context(), k)
		if took := time.Since(begin); durable != 100 || !errors.Is(err, ErrUnreachable) || took > within {
			t.Fatalf("sync: %d, %v after %v", durable, err, took)
		}
		for _, want := range []string{"b (", "c (", "connection refused"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
		time.Sleep(within)
		begin = time.Now()
		for _, k := range []runlog.Key{k, key(2)} {
			if _, err := a.ask(k); !errors.Is(err, ErrUnreachable) {
				t.Errorf("ask about %v: %v", k, err)
			}
			if _, err := a.Sync(t.Context(), k); !errors.Is(err, ErrUnreachable) {
				t.Errorf("sync %v: %v", k, err)
			}
		}
		if took := time.Since(begin); took > 0 {
			t.Errorf("it took %v to say what was known", took)
		}
		w.start("c")
		w.soon("c takes output again", 15*time.Second, func() bool {
			durable, err := a.Sync(t.Context(), k)
			return err == nil && durable == 200
		})
		w.holds("c", k, 200)
	})
}

// The wait for a second primary ends with the context.
func TestSyncGivenUp(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		a, k := w.nodes["a"], key(1)
		w.write("a", k, 0, 100)
		w.freeze("b", true)
		w.freeze("c", true)
		if _, err := a.send(k, 100, 200); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		durable, err := a.Sync(ctx, k)
		if durable != 100 || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("sync: %d, %v", durable, err)
		}
		w.freeze("b", false)
		w.freeze("c", false)
	})
}

// A worker that comes through another primary is told what is known of its log,
// though that primary was away when it was written.
func TestNewGatewayKnowsAll(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		k := key(1)
		w.wall("a", "c", true)
		w.wall("b", "c", true)
		w.write("a", k, 0, 300_000)
		w.wall("b", "c", false)
		w.kill("a")
		c := w.nodes["c"]
		w.soon("c reaches b", 15*time.Second, func() bool {
			known, err := c.ask(k)
			if err == nil && known != 300_000 {
				t.Fatalf("c says that it knows %d", known)
			}
			return err == nil
		})
		w.holds("c", k, 300_000)
		if durable, err := c.Sync(t.Context(), k); err != nil || durable != 300_000 {
			t.Fatalf("sync: %d, %v", durable, err)
		}
		w.write("c", k, 300_000, 300_010)
	})
}

// A log that can't be pulled just now is one whose worker has to wait, and not
// for long.
func TestPullThatHangs(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		k := key(1)
		w.wall("a", "c", true)
		w.wall("b", "c", true)
		w.write("a", k, 0, 1000)
		w.wall("b", "c", false)
		w.kill("a")
		time.Sleep(2 * sweepSoon)
		w.hang("Read", true)
		c := w.nodes["c"]
		if err := c.Remove(k); err != nil { // what it has pulled meanwhile
			t.Fatal(err)
		}
		begin := time.Now()
		known, err := c.ask(k)
		if took := time.Since(begin); known != 0 || err == nil || took > within {
			t.Errorf("it knows %d, %v after %v", known, err, took)
		}
		begin = time.Now()
		durable, err := c.Sync(t.Context(), k)
		if took := time.Since(begin); durable != 0 || err == nil || took > 0 {
			t.Errorf("right after that it waits %v once more: %d, %v", took, durable, err)
		}
		w.hang("Read", false)
		time.Sleep(askAgain)
		if known, err := c.ask(k); known != 1000 || err != nil {
			t.Errorf("it knows %d, %v", known, err)
		}
	})
}

// A primary whose disk fails holds up nobody either, and gets the rest when it is
// mended.
func TestDiskFails(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		k := key(1)
		shard := filepath.Join(w.dir, "c", fmt.Sprintf("%02x", crc32.ChecksumIEEE([]byte(k.Run))%256))
		if err := os.WriteFile(shard, nil, 0o600); err != nil { // where a directory should be
			t.Fatal(err)
		}
		w.write("a", k, 0, 1000)
		time.Sleep(time.Hour)
		w.write("a", k, 1000, 2000)
		w.write("a", key(2), 0, 10)
		synctest.Wait()
		w.holds("c", key(2), 10)
		if n := w.count("Append"); n > 1000 {
			t.Errorf("%d calls in an hour about a disk that fails", n)
		}
		if err := os.Remove(shard); err != nil {
			t.Fatal(err)
		}
		w.soon("c has all", time.Minute, func() bool { return w.nodes["c"].length(k) == 2000 })
		if n := w.said("can't be pushed"); n == 0 || n > 70 {
			t.Errorf("it was said %d times in an hour", n)
		}
	})
}

// What primaries remember of fsyncs is gone when they are started again, so they
// sync once more what they have before it counts.
func TestSyncedAfterRestart(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		k := key(1)
		w.write("a", k, 0, 1000)
		synctest.Wait()
		for _, id := range w.members {
			w.kill(id)
			w.start(id)
		}
		time.Sleep(time.Minute)
		c := w.nodes["c"]
		if known, err := c.ask(k); known != 1000 || err != nil {
			t.Fatalf("c knows %d, %v", known, err)
		}
		before := w.count("Append")
		if durable, err := c.Sync(t.Context(), k); durable != 1000 || err != nil {
			t.Errorf("sync: %d, %v", durable, err)
		}
		if n := w.count("Append") - before; n > 2 {
			t.Errorf("%d calls", n)
		}
	})
}

// A gateway that can't ask enough of the others takes nothing: what they have
// may be forgotten by its worker.
func TestNothingTakenBlindly(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		k := key(1)
		w.wall("a", "c", true)
		w.wall("b", "c", true)
		w.write("a", k, 0, 100)
		c := w.nodes["c"]
		for _, from := range []int64{0, 100} {
			begin := time.Now()
			known, err := c.send(k, from, from+10)
			if !errors.Is(err, ErrUnreachable) || known != 0 || time.Since(begin) > within {
				t.Errorf("append at %d: %d, %v after %v", from, known, err, time.Since(begin))
			}
		}
		w.holds("c", k, 0)
	})
}

// A worker that was away at another primary for a while, whose output this one
// has missed, is not asked to send it again.
func TestGatewayThatMissedSome(t *testing.T) {
	for name, comeBack := range map[string]func(n *node, k runlog.Key) (known int64, err error){
		"asks":  func(n *node, k runlog.Key) (int64, error) { return n.ask(k) },
		"sends": func(n *node, k runlog.Key) (int64, error) { return n.send(k, 200, 200+1) },
	} {
		t.Run(name, func(t *testing.T) {
			story(t, 3, func(t *testing.T, w *world) {
				k := key(1)
				w.write("a", k, 0, 100)
				synctest.Wait()
				w.wall("a", "b", true)
				w.wall("a", "c", true)
				w.write("b", k, 100, 200)
				w.kill("b") // which would push it
				w.wall("a", "c", false)
				known, err := comeBack(w.nodes["a"], k)
				if err != nil || known < 200 {
					t.Fatalf("a knows %d, %v", known, err)
				}
				w.holds("a", k, known)
			})
		})
	}
}

// A hole stays a hole if nobody can fill it: the worker goes on from what is
// known.
func TestHole(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		k := key(1)
		w.write("a", k, 0, 100)
		if known, err := w.nodes["a"].send(k, 150, 200); err != nil || known != 100 {
			t.Fatalf("append behind a hole: %d, %v", known, err)
		}
	})
}

// When the group has changed, those who are in it now are asked before more is
// taken: another one may have been a gateway meanwhile.
func TestAskedAnewInAnotherGroup(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		k := key(1)
		w.write("a", k, 0, 100)
		synctest.Wait()
		w.start("d")
		data := output(k, 100, 200) // b has more of it, and a does not hear of that
		if _, err := w.nodes["b"].disk.Append(k, 100, data, runlog.Checksum(data)); err != nil {
			t.Fatal(err)
		}
		if known, err := w.nodes["a"].send(k, 90, 110); known != 110 || err != nil {
			t.Fatalf("a knows %d, %v", known, err)
		}
		w.regroup("a", "b", "c", "d")
		if known, err := w.nodes["a"].send(k, 110, 120); known != 200 || err != nil {
			t.Fatalf("in another group a knows %d, %v", known, err)
		}
		w.holds("a", k, 200)
	})
}

// One question asks about all the attempts that begin while another is under way.
func TestQuestionsGather(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() {
				if known, err := w.nodes["a"].ask(key(i)); known != 0 || err != nil {
					t.Errorf("ask: %d, %v", known, err)
				}
			})
		}
		wg.Wait()
		if n := w.count("Ask"); n > 100 {
			t.Errorf("%d calls to ask two primaries about 500 attempts", n)
		}
	})
}

// An attempt costs each of the others one question, and its output one call at
// least.
func TestCostOfAnAttempt(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		k := key(1)
		if _, err := w.nodes["a"].ask(k); err != nil {
			t.Fatal(err)
		}
		for i := range int64(10) {
			w.write("a", k, 100*i, 100*(i+1))
		}
		w.end(k, 1000)
		synctest.Wait()
		if n := w.count("Ask"); n != 2 {
			t.Errorf("%d questions", n)
		}
		if n := w.count("Append"); n > 20 {
			t.Errorf("%d calls for 10 pieces on 2 primaries", n)
		}
		if n := w.nodes["a"].kept(); n != 1 {
			t.Errorf("%d things are kept of a log that all have; that it is durable is enough", n)
		}
	})
}

// Of five primaries three keep a log. Another one that its worker comes through
// hands it on, and what that one has counts for nothing.
func TestGatewayThatIsNoHolder(t *testing.T) {
	story(t, 5, func(t *testing.T, w *world) {
		k := key(1)
		holders := Holders(k, w.members)
		var others []string
		for _, id := range w.members {
			if !slices.Contains(holders, id) {
				others = append(others, id)
			}
		}
		w.write(others[0], k, 0, 1000)
		synctest.Wait()
		for _, id := range holders {
			w.holds(id, k, 1000)
		}
		w.holds(others[1], k, 0)

		w.kill(holders[0])
		w.kill(holders[1])
		n := w.nodes[others[0]]
		if known, err := n.send(k, 1000, 1100); err != nil || known != 1100 {
			t.Fatalf("append: %d, %v", known, err)
		}
		if durable, err := n.Sync(t.Context(), k); durable != 1000 || !errors.Is(err, ErrUnreachable) {
			t.Fatalf("with one holder: %d, %v", durable, err)
		}
		if err := w.nodes[others[1]].Fetch(t.Context(), k); !errors.Is(err, ErrUnreachable) {
			t.Errorf("with one holder there may be more that is durable: %v", err)
		}
		w.holds(others[1], k, 1100) // what could be had
	})
}

// All primaries say that a log is durable when it is.
func TestAllKnowThatItIsDurable(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		k := key(1)
		durable := func(id string) int64 {
			i, _ := w.nodes[id].Stat(k)
			return i.Durable
		}
		w.write("a", k, 0, 1000)
		synctest.Wait()
		w.write("a", k, 1000, 1500)
		synctest.Wait()
		if durable("a") != 1500 || durable("b") < 1000 || durable("c") < 1000 {
			t.Errorf("of 1500 durable bytes a knows %d; with the last 500 b was told of %d and c of %d", durable("a"), durable("b"), durable("c"))
		}
		w.end(k, 1500)
		time.Sleep(2 * compareAfter)
		for range 2 {
			for _, id := range w.members {
				if durable(id) != 1500 {
					t.Errorf("%s says that %d of 1500 bytes are durable", id, durable(id))
				}
			}
			for _, id := range w.members {
				w.kill(id)
				w.start(id)
			}
			time.Sleep(time.Minute) // they compare what they have
		}
	})
}

// Each primary can tell how much of a log is durable, those too that keep nothing of
// it, while the output still comes and when one of its holders is down.
func TestDurableAnywhere(t *testing.T) {
	story(t, 5, func(t *testing.T, w *world) {
		k := key(1)
		holders := Holders(k, w.members)
		check := func(want int64, ids ...string) {
			t.Helper()
			for _, id := range ids {
				if n := w.nodes[id]; n.up && n.Durable(t.Context(), k) != want {
					t.Errorf("%s says that %d of %d bytes are durable", id, n.Durable(t.Context(), k), want)
				}
			}
		}
		w.write(holders[0], k, 0, 1000)
		synctest.Wait()
		check(1000, w.members...)
		w.kill(holders[1])
		check(1000, w.members...)
		w.end(k, 1000)
		time.Sleep(2 * compareAfter)
		check(1000, w.members...)
		w.kill(holders[2])
		check(1000, holders[0]) // it was told
		check(0, slices.DeleteFunc(slices.Clone(w.members), func(id string) bool { return slices.Contains(holders, id) })...)
	})
}

// Who follows a log on another primary gets it as it comes, and its end, whoever
// goes down meanwhile.
func TestFollowElsewhere(t *testing.T) {
	story(t, 5, func(t *testing.T, w *world) {
		k := key(1)
		holders := Holders(k, w.members)
		for _, id := range w.members {
			if id == holders[0] {
				continue
			}
			k.Attempt++
			var got bytes.Buffer
			done := make(chan error, 1)
			go func() {
				done <- w.nodes[id].Follow(t.Context(), k, 0, func(_ int64, p []byte) error {
					got.Write(p)
					return nil
				})
			}()
			w.write(holders[0], k, 0, 1000)
			time.Sleep(2 * chaseEvery)
			synctest.Wait()
			if got.Len() != 1000 {
				t.Errorf("%s has shown %d of 1000 bytes", id, got.Len())
			}
			w.write(holders[0], k, 1000, 2000)
			w.kill(holders[0])
			w.end(k, 2000)
			if err := <-done; err != nil || !bytes.Equal(got.Bytes(), output(k, 0, 2000)) {
				t.Errorf("%s has shown %d of 2000 bytes, %v", id, got.Len(), err)
			}
			w.start(holders[0])
		}
	})
}

// On a primary that is alone all is as if there were no others: nobody is asked,
// and nothing is kept in memory.
func TestAlone(t *testing.T) {
	story(t, 1, func(t *testing.T, w *world) {
		k := key(1)
		w.write("a", k, 0, 1000)
		w.end(k, 1000)
		w.check("a", k, 1000)
		if i, ok := w.nodes["a"].Stat(k); !ok || i.Durable != 1000 || !i.Complete {
			t.Errorf("%+v", i)
		}
		time.Sleep(time.Hour)
		a := w.nodes["a"]
		if n := a.kept(); n != 0 || len(a.links) != 0 || len(w.calls) != 0 {
			t.Errorf("it keeps %d things in memory, and has %d links; calls: %v", n, len(a.links), w.calls)
		}
	})
}

// A primary that is in no group says so.
func TestNoGroup(t *testing.T) {
	story(t, 1, func(t *testing.T, w *world) {
		w.regroup()
		_, err := w.nodes["a"].send(key(1), 0, 100)
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "no group") {
			t.Errorf("append: %v", err)
		}
	})
}

// What was written on a primary that was alone spreads when others join, and
// stays when they go.
func TestGroupGrowsAndShrinks(t *testing.T) {
	story(t, 1, func(t *testing.T, w *world) {
		old, live := key(1), key(2)
		w.write("a", old, 0, 1000)
		w.end(old, 1000)
		w.write("a", live, 0, 500)
		for _, id := range []string{"b", "c"} {
			w.start(id)
		}
		time.Sleep(time.Minute)
		w.regroup("a", "b", "c")
		w.write("a", live, 500, 600)
		synctest.Wait()
		for _, id := range []string{"a", "b", "c"} {
			w.holds(id, live, 600)
		}
		w.soon("b and c have the old log", time.Minute, func() bool {
			return w.nodes["b"].length(old) == 1000 && w.nodes["c"].length(old) == 1000
		})
		w.kill("a")
		w.regroup("b", "c")
		w.check("b", old, 1000)
		w.write("b", live, 600, 700)
		w.kill("c")
		w.regroup("b")
		w.write("b", live, 700, 800)
		w.check("b", live, 800)
	})
}
