package gateway

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/schedd/schedd/proto/wire"
)

// Ten thousand workers that came within a second ping at slots from then on. None waits
// for longer than a worker may that chooses by itself, or for much less than an interval,
// and after some minutes no slot has many more of them than any other.
func TestPingsComeAtSlots(t *testing.T) {
	const workers = 10_000
	r := rand.New(rand.NewPCG(1, 2))
	latest := wire.Spread(wire.PingInterval, wire.PingSpread, 1)
	at := make([]time.Duration, workers)
	for i := range at {
		at[i] = time.Duration(r.Float64() * float64(time.Second))
	}
	share := make(map[time.Duration]int)
	const begin, end = 20 * time.Minute, 21 * time.Minute
	for _, now := range at {
		for now < end {
			wait := nextPing(now, r.Float64())
			if wait > latest || wait <= wire.PingInterval-slot {
				t.Fatalf("a worker is to ping after %v, want %v to %v", wait, wire.PingInterval-slot, latest)
			}
			if now += wait; now%slot != 0 {
				t.Fatalf("a ping is due at %v, which is no slot", now)
			}
			if now >= begin && now < end {
				share[now]++
			}
		}
	}
	slots := int((end - begin) / slot)
	if len(share) != slots {
		t.Errorf("%d slots of %d are used", len(share), slots)
	}
	mean := workers * slot.Seconds() / 11 // s, from one ping to the next
	for due, n := range share {
		if float64(n) > 1.5*mean || float64(n) < mean/2 {
			t.Errorf("%d pings at %v, and %.0f are its share", n, due, mean)
		}
	}
}
