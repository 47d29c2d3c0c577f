package agent

import (
	"errors"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/schedd/schedd/agent/session"
	"github.com/schedd/schedd/proto/wire"
)

// What is here decides how long to wait, and does nothing.

// refusedAgain is how often a worker asks that was told it is not wanted.
// Somebody may change that, and should not have to restart it then.
const refusedAgain = time.Hour

const (
	// hasty is how many refusals in a row are taken for the load balancer's that
	// is being set up, or reloaded.
	hasty = 5
	// After these a worker asks once in refusedMin to refusedMax. Nothing but an
	// in-band Reject has authority, so it never stops; and who has mended a load
	// balancer looks for the workers within a minute.
	refusedMin = 30 * time.Second
	refusedMax = time.Minute
)

// pause returns how long to wait before the next try to open a session, after
// failures in a row, the last refusals of them with a status as in [mayBeMeant].
// r is a random number in [0, 1).
func pause(failures, refusals int, r float64) time.Duration {
	if refusals <= hasty {
		return wire.Backoff(failures, r)
	}
	return refusedMin + time.Duration(r*float64(refusedMax-refusedMin))
}

// stopsAtOnce is how many times in a row a worker goes at once whose gateway, or load
// balancer, is about to stop before they have talked for long. When primaries are
// restarted one after the other that is as often as there are primaries, or twice if it
// is done again; more often, somebody says so who does not stop.
const stopsAtOnce = 10

// mayBeMeant reports whether an error has a status that means, if it is a
// primary's, that trying again is of no use. It may as well come from a load
// balancer: 401, 403 and 404 look like this.
func mayBeMeant(err error) bool {
	if _, ok := errors.AsType[*session.Rejected](err); ok || err == nil {
		return false
	}
	code := status.Code(err)
	return code == codes.Unauthenticated || code == codes.PermissionDenied || code == codes.Unimplemented
}

// wasCut reports whether a session that ended with err was cut by somebody on the
// way: nobody said a word, and it was not silent before.
func wasCut(err error) bool {
	_, rejected := errors.AsType[*session.Rejected](err)
	return err != nil && !rejected && !errors.Is(err, session.ErrSilent)
}

const (
	// alikeCuts streams that were cut at the same age, give or take alikePart of
	// it, were cut by the clock.
	alikeCuts = 3
	alikePart = 0.05
	// shortestLimit is the lowest age that is taken for a limit: to stay below a
	// lower one would be nothing but dialling.
	shortestLimit = 10 * time.Second
	// rhythmHolds is how long a limit is believed in. Somebody may mend it.
	rhythmHolds = 24 * time.Hour
	// Sessions are replaced at an age of rotateMin to rotateMax parts of the limit.
	rotateMin, rotateMax = 0.7, 0.8
)

// rhythm recognises somebody on the way who cuts every stream at the same age,
// whatever happens on it: the maximum duration of a load balancer. The zero
// value has seen nothing.
type rhythm struct {
	ages  []time.Duration // of the last streams that were cut
	limit time.Duration   // 0: none is known
	since time.Time       // it is known
	told  time.Duration   // the last limit that was news
}

// cut takes note of a stream that was cut at an age. It returns the limit there
// is, and whether that is news for people: they are not told the same twice.
func (r *rhythm) cut(age time.Duration, now time.Time) (limit time.Duration, news bool) {
	r.ages = append(r.ages, age)
	if len(r.ages) > alikeCuts {
		r.ages = r.ages[1:]
	}
	least, most := slices.Min(r.ages), slices.Max(r.ages)
	if len(r.ages) < alikeCuts || least < shortestLimit || !alike(least, most) {
		return r.limit, false
	}
	r.limit, r.since = least, now
	news = !alike(min(r.told, least), max(r.told, least))
	if news {
		r.told = least
	}
	return r.limit, news
}

func alike(less, more time.Duration) bool {
	return float64(more-less) <= alikePart*float64(more)
}

// rotation returns at which age a stream that begins now should be replaced to
// be ahead of the cut; a time that never comes if none is known. r is a random
// number in [0, 1).
func (r *rhythm) rotation(now time.Time, random float64) time.Duration {
	if r.limit == 0 || now.Sub(r.since) > rhythmHolds {
		return never
	}
	return time.Duration((rotateMin + (rotateMax-rotateMin)*random) * float64(r.limit))
}

// never is longer than any session lives.
const never = 1000 * time.Hour
