package wire_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/schedd/schedd/proto/wire"
)

func TestBackoff(t *testing.T) {
	const almost = 1 - 1e-12
	for _, test := range []struct {
		name     string
		failures int
		r        float64
		want     time.Duration
	}{
		{"lucky", 9, 0, 0},
		{"none yet", 0, 0.5, 250 * time.Millisecond},
		{"the first", 1, 0.5, 250 * time.Millisecond},
		{"the first, unlucky", 1, almost, 500 * time.Millisecond},
		{"the second", 2, almost, time.Second},
		{"the sixth", 6, almost, 16 * time.Second},
		{"the seventh is at the limit", 7, almost, 30 * time.Second},
		{"and so is the millionth", 1_000_000, almost, 30 * time.Second},
	} {
		if got := wire.Backoff(test.failures, test.r).Round(time.Millisecond); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// However long the outage and whatever the dice, nobody waits for longer than
// the limit, and never for a negative time, which would be a busy loop.
func TestBackoffStaysInBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		failures, r := rapid.Int().Draw(t, "failures"), rapid.Float64Range(0, 1).Draw(t, "r")
		got := wire.Backoff(failures, r)
		if got < 0 || got > wire.BackoffMax {
			t.Fatalf("Backoff(%d, %v) = %v", failures, r, got)
		}
		if failures < 1_000_000 && wire.Backoff(failures+1, r) < got {
			t.Fatalf("Backoff(%d, %v) = %v is more than after one more failure", failures, r, got)
		}
	})
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		r    float64
		want time.Duration
	}{{0, 8 * time.Second}, {0.5, 10 * time.Second}, {1, 12 * time.Second}} {
		if got := wire.Spread(wire.PingInterval, wire.PingSpread, test.r); got != test.want {
			t.Errorf("r = %v: %v, want %v", test.r, got, test.want)
		}
	}
}

// The constants only make sense together.
func TestTimingsFit(t *testing.T) {
	slowest := wire.Spread(wire.PingInterval, wire.PingSpread, 1)
	if 3*slowest >= wire.DeadAfter {
		t.Errorf("three pings in a row may take %v, so two lost pings could end a session after %v", 3*slowest, wire.DeadAfter)
	}
	if shortest := 15 * time.Second; slowest > shortest-2*time.Second {
		t.Errorf("two pings may be %v apart, so a load balancer with an idle timeout of %v could cut a session", slowest, shortest)
	}
	if wire.LogChunk > wire.LogCredit {
		t.Errorf("a chunk of %d bytes never fits a credit of %d", wire.LogChunk, wire.LogCredit)
	}
	if chunk := wire.ChunkFor(wire.LogCredit); chunk != wire.LogChunk {
		t.Errorf("a line of which nothing is known has chunks of %d bytes, want %d", chunk, wire.LogChunk)
	}
	if chunk := wire.ChunkFor(512 << 10); chunk != wire.LogChunk {
		t.Errorf("a gateway that grants 512 KiB at most, and takes %d bytes, gets chunks of %d", wire.LogChunk, chunk)
	}
	if chunk := wire.ChunkFor(1 << 20); chunk != wire.MaxLogChunk {
		t.Errorf("a line that has a MiB on its way, which is the most that gateways grant, gets chunks of %d bytes, want %d", chunk, wire.MaxLogChunk)
	}
	if chunk := wire.ChunkFor(1 << 30); chunk != wire.MaxLogChunk || chunk >= wire.MaxMessage {
		t.Errorf("the largest chunk has %d bytes, want %d, below a message's %d", chunk, wire.MaxLogChunk, wire.MaxMessage)
	}
	if wire.MinRevision > wire.MaxRevision {
		t.Errorf("this build speaks no revision: %d to %d", wire.MinRevision, wire.MaxRevision)
	}
}

// The first tries give up soon, and those after them have ever more time.
func TestPatience(t *testing.T) {
	for late, want := range []time.Duration{1500, 1500, 3000, 6000, 12_000, 24_000, 30_000, 30_000} {
		if got := wire.Patience(late, 0); got != want*time.Millisecond {
			t.Errorf("after %d tries that took too long: %v, want %v ms", late, got, int(want))
		}
	}
	for _, test := range []struct{ took, want time.Duration }{
		{10 * time.Millisecond, 1500 * time.Millisecond}, {2 * time.Second, 8 * time.Second}, {time.Minute, 30 * time.Second},
	} {
		if got := wire.Patience(0, test.took); got != test.want {
			t.Errorf("after a session that took %v to open: %v, want %v", test.took, got, test.want)
		}
	}
}
