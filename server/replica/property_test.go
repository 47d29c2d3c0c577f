package replica

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/schedd/schedd/server/runlog"
)

// step is something that happens to a group. It is drawn before, and what it is
// about is found when it happens: rapid has no place in a bubble.
type step struct {
	What string
	A, B int // primaries
	Key  int
	Size int
}

// history is what happens to a group of primaries.
type history struct {
	size  int
	seed  uint64
	steps []step
}

func drawHistory(t *rapid.T) history {
	often := func(what string, n int) []string { return slices.Repeat([]string{what}, n) }
	whats := slices.Concat(often("print", 12), often("ask", 2), often("kill", 2), often("start", 3), often("wall", 2), often("mend", 2),
		often("freeze", 1), often("thaw", 2), often("lose", 1), often("calm", 1), often("wait", 3), often("end", 1), often("replace", 1))
	one := rapid.Custom(func(t *rapid.T) step {
		return step{
			What: rapid.SampledFrom(whats).Draw(t, "what"), A: rapid.IntRange(0, 4).Draw(t, "a"), B: rapid.IntRange(0, 4).Draw(t, "b"),
			Key:  rapid.IntRange(0, 3).Draw(t, "key"),
			Size: rapid.OneOf(rapid.IntRange(1, 100), rapid.IntRange(1, 280_000)).Draw(t, "size"),
		}
	})
	return history{
		size:  rapid.SampledFrom([]int{2, 3, 3, 5}).Draw(t, "primaries"),
		seed:  rapid.Uint64().Draw(t, "seed"),
		steps: rapid.SliceOfN(one, 1, 30).Draw(t, "steps"),
	}
}

// attempt is a log as its worker knows it.
type attempt struct {
	key     runlog.Key
	printed int64
	durable int64  // as it was told
	gateway string // whom it sends to; "": it has no session
	known   int64  // as the gateway said
	ended   bool
}

// ordeal is a group that lives through a history.
type ordeal struct {
	*world
	rand     *rand.Rand
	attempts []*attempt
}

// failure is what a recorder panics with.
type failure string

// recorder ends what is being tried when it fails, and nothing else.
type recorder struct{ t *testing.T }

func (recorder) Helper()                        {}
func (r recorder) Logf(format string, a ...any) { r.t.Logf(format, a...) }
func (recorder) Fatalf(format string, a ...any) { panic(failure(fmt.Sprintf(format, a...))) }
func (o *ordeal) expect(ok bool, f string, a ...any) {
	if !ok {
		o.Fatalf(f, a...)
	}
}

// live lives through a history, and returns what was not as it should be.
func live(t *testing.T, dir string, h history) (wrong string) {
	synctest.Test(t, func(t *testing.T) {
		o := &ordeal{rand: rand.New(rand.NewPCG(h.seed, 1))}
		o.world = newWorld(recorder{t}, dir, h.size)
		defer o.close()
		defer func() {
			switch r := recover().(type) {
			case nil:
			case failure:
				wrong = string(r) + "\n" + o.story()
			default:
				panic(r)
			}
		}()
		for i := range 4 {
			o.attempts = append(o.attempts, &attempt{key: key(i)})
		}
		for _, s := range h.steps {
			o.step(s)
			o.glance(o.attempts[s.Key])
		}
		o.reckon()
	})
	return wrong
}

func (w *world) story() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := bytes.Split(w.tail.Bytes(), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-40):], []byte("\n")))
}

func (o *ordeal) step(s step) {
	a, b, at := o.members[s.A%len(o.members)], o.members[s.B%len(o.members)], o.attempts[s.Key]
	up := o.nodes[a].up
	switch s.What {
	case "print":
		o.print(at, a, int64(s.Size))
	case "ask":
		at.gateway = ""
		o.print(at, a, 0)
	case "kill":
		o.kill(a)
	case "start":
		if !up {
			o.start(a)
		}
	case "wall", "mend":
		if a != b {
			o.wall(a, b, s.What == "wall")
		}
	case "freeze", "thaw":
		o.freeze(a, s.What == "freeze")
	case "lose":
		dice := rand.New(rand.NewPCG(o.rand.Uint64(), 2))
		o.lose(func() (bool, bool) { return dice.IntN(5) == 0, dice.IntN(5) == 0 })
	case "calm":
		o.lose(nil)
	case "wait":
		time.Sleep(time.Duration(s.Size) * 100 * time.Microsecond)
	case "end":
		at.ended = true
		o.end(at.key, at.printed)
	case "replace":
		o.heal()
		time.Sleep(sweepEvery + time.Minute)
		o.reckon()
		o.replace(a)
		time.Sleep(sweepEvery + time.Minute)
	}
}

// print has an attempt print so many bytes more, and its worker send what the
// primary lacks, as a session of it does.
func (o *ordeal) print(at *attempt, id string, size int64) {
	n := o.nodes[id]
	if !at.ended {
		at.printed += size
	}
	if !n.up {
		return
	}
	if at.gateway != id {
		known, err := n.ask(at.key)
		if err != nil {
			return
		}
		o.expect(known >= at.durable, "%s knows %d bytes of %v, and %d were durable", id, known, at.key, at.durable)
		o.expect(known <= at.printed, "%s knows %d bytes of %v, and %d were printed", id, known, at.key, at.printed)
		at.gateway, at.known = id, known
	}
	for at.known < at.printed {
		to := min(at.printed, at.known+64<<10)
		known, err := n.send(at.key, at.known, to)
		if err != nil {
			at.gateway = ""
			return
		}
		o.expect(known >= at.durable, "%s knows %d bytes of %v then, and %d were durable", id, known, at.key, at.durable)
		o.expect(known <= at.printed, "%s knows %d bytes of %v then, and %d were printed", id, known, at.key, at.printed)
		o.expect(known > at.known, "%s took nothing of %v at %d: %d", id, at.key, at.known, known)
		at.known = known
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(o.rand.IntN(20))*time.Second)
	defer cancel()
	durable, err := n.Sync(ctx, at.key)
	if err != nil {
		at.gateway = ""
	}
	o.expect(err != nil || durable >= at.known, "%s synced %d bytes of %v, and knew %d", id, durable, at.key, at.known)
	o.expect(durable <= at.printed, "%s synced %d bytes of %v, and %d were printed", id, durable, at.key, at.printed)
	at.durable = max(at.durable, durable)
}

// glance expects what is on each disk to be what was printed, from its beginning.
func (o *ordeal) glance(attempts ...*attempt) {
	for _, id := range o.members {
		if !o.nodes[id].up {
			continue
		}
		for _, at := range attempts {
			got := o.content(id, at.key)
			o.expect(int64(len(got)) <= at.printed && bytes.Equal(got, output(at.key, 0, int64(len(got)))),
				"%s has %d bytes of %v that are not what was printed", id, len(got), at.key)
			i, _ := o.nodes[id].Stat(at.key)
			o.expect(i.Durable <= i.Known, "%s has %d bytes of %v and says that %d are durable", id, i.Known, at.key, i.Durable)
		}
	}
}

// heal makes everything as it should be, and lets some time pass.
func (o *ordeal) heal() {
	for _, id := range o.members {
		o.freeze(id, false)
		for _, other := range o.members {
			o.wall(id, other, false)
		}
		if !o.nodes[id].up {
			o.start(id)
		}
	}
	o.lose(nil)
	time.Sleep(time.Minute)
}

// reckon expects all that was acknowledged to be on each primary, whichever is
// down, and all copies to be alike in the end.
func (o *ordeal) reckon() {
	o.heal()
	for _, down := range o.members {
		o.kill(down)
		for _, id := range o.members {
			if id == down {
				continue
			}
			for _, at := range o.attempts {
				err := o.nodes[id].Fetch(context.Background(), at.key)
				o.expect(err == nil, "%s is down, and %s can't fetch %v: %v", down, id, at.key, err)
				got := int64(len(o.content(id, at.key)))
				o.expect(got >= at.durable, "%s is down, and %s has %d bytes of %v, of which %d were durable", down, id, got, at.key, at.durable)
			}
		}
		o.glance(o.attempts...)
		o.start(down)
		time.Sleep(time.Minute)
	}
	time.Sleep(sweepEvery + time.Minute)
	for _, at := range o.attempts {
		holders := Holders(at.key, o.members)
		want := o.nodes[holders[0]].length(at.key)
		for _, id := range holders {
			o.expect(o.nodes[id].length(at.key) == want, "%s has %d bytes of %v, and %s %d", id, o.nodes[id].length(at.key), at.key, holders[0], want)
			i, _ := o.nodes[id].Stat(at.key)
			o.expect(!i.Complete || i.Durable == i.Length, "%s has all of %v, and says that %d of %d bytes are durable", id, at.key, i.Durable, i.Length)
		}
	}
}

// Whatever goes down, is cut off, stands still or loses calls, whoever the worker
// sends to: what was acknowledged as durable can be read from any primary while
// any one is down, as it was printed; no gateway asks for it again; and in the
// end all copies are alike.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	home, lives := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		h := drawHistory(rt)
		lives++
		if wrong := live(t, filepath.Join(home, strconv.Itoa(lives)), h); wrong != "" {
			rt.Fatalf("%s", wrong)
		}
	})
}
