package systest

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	seed = flag.Uint64("seed", 0, "replay the random stories with this seed only")
	more = flag.Int("more", 1, "tell each random story with so many times as many seeds")
	// fresh seeds find what the fixed ones never will; those guard what was found.
	fresh = flag.Int("fresh", 0, "tell each random story with so many seeds that were never used before, too")
	// lasts bounds a hunt, of which nobody knows how many worlds it takes.
	lasts = flag.Duration("for", 0, "begin random stories for so long, one after the other; 0: all of them")
)

// hunt is what came of telling a random story with one seed after the other.
type hunt struct {
	end time.Time // when no story begins any more; zero: all of them do

	mu    sync.Mutex // guards what follows
	told  int
	lived time.Duration
	found []string // what was wrong first, and how to replay it
}

// seeds runs a random story with several seeds, or with the one asked for. What came of
// it is known when the test ends.
func seeds(t *testing.T, n int, tell func(w *world, dice *rand.Rand)) *hunt {
	t.Helper()
	h := &hunt{}
	if *lasts > 0 {
		h.end = time.Now().Add(*lasts)
	}
	for _, s := range those(n) {
		if h.over() {
			break
		}
		t.Run(fmt.Sprint("seed=", s), func(t *testing.T) {
			if *lasts == 0 {
				t.Parallel()
			}
			h.tell(t, s, tell)
		})
	}
	return h
}

// those are the seeds that a story is told with, which has n of its own.
func those(n int) (all []uint64) {
	if *seed != 0 {
		return []uint64{*seed}
	}
	for s := range uint64(n * *more) {
		all = append(all, 1+s)
	}
	for range *fresh {
		all = append(all, 1<<32+rand.Uint64N(1<<52))
	}
	return all
}

func (h *hunt) over() bool { return !h.end.IsZero() && time.Now().After(h.end) }

// tell tells the story with one seed.
func (h *hunt) tell(t *testing.T, seed uint64, tell func(w *world, dice *rand.Rand)) {
	t.Helper()
	var (
		lived time.Duration
		wrong string
	)
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.told, h.lived = h.told+1, h.lived+lived
		if t.Failed() {
			h.found = append(h.found, wrong+"; "+replay(t, seed))
		}
	}()
	bubble(t, func(w *world) {
		defer func() {
			lived, wrong = time.Since(w.born), w.complaint()
			if w.Failed() {
				w.Logf("to replay it: %s", replay(t, seed))
			}
		}()
		tell(w, rand.New(rand.NewPCG(seed, 0)))
	})
}

// replay is the command that tells a story with the same seed. Which goroutine of a world
// goes first is not the seed's: on one processor that differs least.
func replay(t *testing.T, seed uint64) string {
	test, _, _ := strings.Cut(t.Name(), "/")
	return fmt.Sprintf("GOMAXPROCS=1 go test -run '^%s$' -seed=%d -long=%v -artifacts ./server/systest", test, seed, *long)
}

// report says how much was tried, and what was found.
func (h *hunt) report(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	t.Logf("measured: %d seeds, %.1f simulated days, %d findings", h.told, h.lived.Hours()/24, len(h.found))
	for _, finding := range h.found {
		t.Logf("measured: a finding: %s", finding)
	}
}

// A hunt ends when its time is over, counts what it has told, and names what failed.
func TestHunt(t *testing.T) {
	defer func(was time.Duration) { *lasts = was }(*lasts)
	*lasts = time.Nanosecond
	if h := seeds(t, 1, func(w *world, _ *rand.Rand) { w.Error("it begins a story when there is no time left") }); h.told > 0 {
		t.Errorf("it told %d stories", h.told)
	}
	*lasts = time.Hour
	h := seeds(t, 3, func(w *world, _ *rand.Rand) { w.wait(8 * time.Hour) })
	if want := 3 * *more; *seed == 0 && h.told != want+*fresh || h.lived != time.Duration(h.told)*8*time.Hour || len(h.found) > 0 {
		t.Errorf("of %d stories it says that they were %d, lived for %v, and %q failed", want, h.told, h.lived, h.found)
	}
}
