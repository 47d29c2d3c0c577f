package wire

import "time"

// The revisions of the session protocol that this build speaks. Hello offers
// the worker's, Welcome picks the highest that both ends know; where there is
// none, the gateway rejects the worker and says which end is too old.
const (
	MinRevision = 1
	MaxRevision = 1
)

// MaxLeases bounds the attempts for which one ping asks for leases. So many fit in a
// message, with room to spare.
const MaxLeases = 1 << 16

// The timing of a session.
const (
	// PingInterval is the mean time between two pings of a worker in the stream, if
	// its gateway does not say within the spread when it would like the next one.
	// Each is answered, so there is something to hear both ways. With its spread
	// it stays under the shortest idle timeout that is set in front of a server
	// (15 s), and these pings, unlike those of HTTP/2, are traffic that a load
	// balancer counts.
	PingInterval = 10 * time.Second
	// PingSpread is the part of PingInterval by which each ping is early or
	// late, so that ten thousand workers that came at once do not ping at once.
	PingSpread = 0.2
	// DeadAfter is how long a session may be silent before either end gives it
	// up: more than three intervals, so that a lost ping never ends a session.
	DeadAfter = 45 * time.Second
	// OfflineAfter is how long a worker without a session may take to come back
	// before it is recorded as offline and gets no new runs. What it already
	// runs is unknown then, not failed.
	OfflineAfter = 30 * time.Second
	// StreamLife is the mean life of a stream. The worker opens the next one
	// before it closes the old, so sessions spread over the primaries again
	// after one of them was away.
	StreamLife = time.Hour
	// StreamLifeSpread is the part of StreamLife by which a stream lives longer
	// or shorter.
	StreamLifeSpread = 0.1

	// BackoffBase and BackoffMax bound the wait before a worker tries again to
	// open a session, see [Backoff].
	BackoffBase = 500 * time.Millisecond
	BackoffMax  = 30 * time.Second
	// BackoffReset is how long a session has to live before the failures that
	// came before it are forgotten. A session that is accepted and cut at once
	// is a failure as well; one whose gateway is about to stop is none.
	BackoffReset = time.Minute
)

// Backoff returns how long to wait before the next try to open a session, after
// failures tries in a row that came to nothing: full jitter, r parts of a
// ceiling that doubles from [BackoffBase] to [BackoffMax]. r is a random number
// in [0, 1) that the caller draws, so that this function is pure. Fewer than
// one failure counts as one.
func Backoff(failures int, r float64) time.Duration {
	ceiling := BackoffBase
	for i := 1; i < failures && ceiling < BackoffMax; i++ {
		ceiling *= 2
	}
	return time.Duration(r * float64(min(ceiling, BackoffMax)))
}

// How long a try to open a session may take.
const (
	// patienceBase is what a first try has until it is answered. It is five round trips
	// on a line of 300 ms. A load balancer that takes the connection for a host that is
	// gone must not cost more: with two such tries in a row, and the pauses around them,
	// a worker is back within 5 s.
	patienceBase = 1500 * time.Millisecond
	patienceMax  = 30 * time.Second
	// ProveWithin is how long a worker waits for its welcome once it was challenged: as
	// long as the gateway does. There is somebody, who has begun with this worker, and who
	// may have ten thousand to welcome; to give up now would have all of it done again.
	ProveWithin = 10 * time.Second
)

// Patience returns how long the next try to open a session may take, after late
// tries in a row that took too long and a last good one that took so long. A line
// on which it takes long, or a primary that all workers come back to at once, gets
// more and more time.
func Patience(late int, took time.Duration) time.Duration {
	p := patienceBase
	for i := 1; i < late && p < patienceMax; i++ {
		p *= 2
	}
	return min(max(p, 4*took), patienceMax)
}

// Spread returns d made longer or shorter by up to the given part of it, evenly
// for r in [0, 1): Spread(PingInterval, PingSpread, r) is 8 s to 12 s.
func Spread(d time.Duration, part, r float64) time.Duration {
	return d + time.Duration((2*r-1)*part*float64(d))
}
