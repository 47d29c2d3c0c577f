package peer

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
)

// What may wait is bounded by number and, on a wire, by size, whichever comes first. What was
// taken counts no longer; after an overflow nothing is taken in any more.
func TestQueueIsBounded(t *testing.T) {
	for name, test := range map[string]struct {
		bytes  int // of each message, about
		within bool
		fit    int
	}{
		"small ones":                  {100, false, maxQueued},
		"large ones":                  {1 << 20, false, maxQueuedBytes>>20 - 1},
		"large ones within a process": {1 << 20, true, maxQueued},
	} {
		t.Run(name, func(t *testing.T) {
			m := report("w", 1, result(strings.Repeat("x", test.bytes)))
			if size := proto.Size(m); size < test.bytes || size > test.bytes+100 {
				t.Fatalf("a message has %d bytes", size)
			}
			q := newQueue[*peerv1.LinkRequest](test.within)
			for round := range 2 {
				for i := range test.fit {
					if !q.put(m) {
						t.Fatalf("round %d: message %d is refused, of %d that fit", round, i, test.fit)
					}
				}
				if round == 0 {
					if all, ok := q.take(); !ok || len(all) != test.fit {
						t.Fatalf("%d messages were taken, %v", len(all), ok)
					}
				}
			}
			if q.put(m) {
				t.Error("one message more is taken in than fit")
			}
			if _, ok := q.take(); ok || q.put(m) {
				t.Error("it goes on after an overflow, and what was refused is missing")
			}
		})
	}
}

// A gateway that reads nothing for a while, while much is to be launched, has its
// link cut before it costs the leader its memory, and comes back with a new one.
func TestSlowGatewayIsCut(t *testing.T) {
	story(t, func(w *world) {
		a, b := w.nodes["a"], w.nodes["b"]
		w.lead("a")
		b.up.Attach(session("w", 1, "b"))
		wait(time.Second)
		b.conns.freeze()
		a.conns.freeze()
		large, sent := kill(strings.Repeat("x", 1<<20)), 0
		for sent < 1000 && a.hub.Send("w", 1, large) {
			sent++
			wait(time.Millisecond)
		}
		if limit := 2 * maxQueuedBytes >> 20; sent > limit {
			t.Errorf("%d MiB were taken for a gateway that reads nothing, of %d at most", sent, limit)
		}
		wait(20 * time.Second)
		if linked, _ := b.up.Linked(); !linked || !a.hub.Send("w", 1, kill("please")) {
			t.Error("it has no link again")
		}
	}, "a", "b")
}
