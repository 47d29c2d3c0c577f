package torture

import (
	"hash/fnv"
	"iter"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/schedd/schedd/server/torture/verdict"
)

// draw is a fault before it is known whom it hits.
type draw struct {
	gap    time.Duration // from the moment at which all is well
	kind   verdict.Kind
	leader bool          // the leader is to be hit, if it may be
	pick   int           // which of those that may be hit
	span   time.Duration // how long it lasts; of a kill, until it is started again
}

// How long faults last, and lie apart. A worker that is silent for three minutes is
// given up, and what runs there may then run twice; what is halted or cut off comes
// back long before.
const (
	leastGap, mostGap   = 500 * time.Millisecond, 6 * time.Second
	mostDown            = 3 * time.Second
	leastHalt, mostHalt = 500 * time.Millisecond, 20 * time.Second
)

// draws are the faults of a lane, without end. They depend on the seed and the name
// of the lane alone, and not on what happens meanwhile.
func draws(seed uint64, lane string) iter.Seq[draw] {
	h := fnv.New64a()
	_, _ = h.Write([]byte(lane)) // it never fails
	return func(yield func(draw) bool) {
		r := rand.New(rand.NewPCG(seed, h.Sum64()))
		between := func(least, most time.Duration) time.Duration {
			return least + time.Duration(r.Int64N(int64(most-least)))
		}
		for {
			d := draw{gap: between(leastGap, mostGap), leader: r.IntN(10) < 7, pick: r.IntN(1 << 30), kind: verdict.Kill}
			down, halt := between(0, mostDown), between(leastHalt, mostHalt)
			switch dice := r.IntN(10); {
			case dice < 7:
				d.span = down
			case dice < 9:
				d.kind, d.span = verdict.Halt, halt
			default:
				d.kind, d.span = verdict.Cut, halt
			}
			if !yield(d) {
				return
			}
		}
	}
}

// behind tells whether the next fault has to be the death of the leader, for
// there to be enough of them in the end.
func behind(now, start, end time.Time, killed, wanted int) bool {
	share := float64(now.Sub(start)) / float64(end.Sub(start))
	return float64(killed) < float64(wanted)*share*1.5 && killed < wanted
}

// aim says whom a fault hits, and what it is. A draw of a kind that the one it hits
// can't suffer is a kill. It returns nil when nobody may be hit.
func aim(d draw, victims []Victim, leader string, killLeader bool) (v *Victim, kind verdict.Kind, role verdict.Role) {
	if len(victims) == 0 {
		return nil, "", ""
	}
	isLeader := func(v Victim) bool { return v.Part == Primary && v.Name == leader }
	at := d.pick % len(victims)
	if i := slices.IndexFunc(victims, isLeader); i >= 0 && (d.leader || killLeader) {
		at = i
	}
	v, kind = &victims[at], d.kind
	if _, can := v.Process.(Cutter); kind == verdict.Cut && !can {
		kind = verdict.Kill
	}
	switch {
	case isLeader(*v):
		if killLeader {
			kind = verdict.Kill
		}
		return v, kind, verdict.Leader
	case v.Part == Primary:
		return v, kind, verdict.Follower
	case v.Part == Runner:
		return v, kind, verdict.Runner
	}
	return v, kind, verdict.Worker
}
