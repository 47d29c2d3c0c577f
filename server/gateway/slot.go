package gateway

import (
	"time"

	"github.com/schedd/schedd/proto/wire"
)

// slot is how far apart the instants are at which workers are asked to ping. What an idle
// session costs is above all that somebody wakes up for it: threads, the runtime's own
// among them, for each message that comes alone. Ten thousand workers that each ping at an
// instant of their own would wake a primary a thousand times a second; so they do it eight
// times. What gRPC does some time after it heard of somebody comes at once as well then.
const slot = 125 * time.Millisecond

// nextPing returns after how long a worker is to ping again whose ping has come now: at a
// slot, as late as a ping may come, or up to a sixth earlier, so that workers that came at
// once are spread over the slots. Now is counted from anywhere, the same for all workers.
// r is a random number in [0, 1).
func nextPing(now time.Duration, r float64) time.Duration {
	latest := wire.Spread(wire.PingInterval, wire.PingSpread, 1)
	due := now + wire.PingInterval + time.Duration(r*float64(latest-wire.PingInterval))
	return due.Truncate(slot) - now
}
