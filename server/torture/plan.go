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
	crash  bool          // all primaries lose their power, or the host of a worker does
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
			d.crash = r.IntN(12) == 0
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

// blow is a fault of which is known whom it hits.
type blow struct {
	victim Victim
	kind   verdict.Kind
	role   verdict.Role
}

// aim says whom a fault hits of those who may be, and what it is for each of them;
// nobody, when nobody may be hit. A kind of fault that somebody can't suffer is a
// kill.
func aim(d draw, victims []Victim, leader string, killLeader bool) []blow {
	if len(victims) == 0 {
		return nil
	}
	at := d.pick % len(victims)
	leads := slices.IndexFunc(victims, func(v Victim) bool { return v.Part == Primary && v.Name == leader })
	if leads >= 0 && (d.leader || killLeader) {
		at = leads
	}
	v, kind := victims[at], d.kind
	if _, can := v.Process.(Cutter); kind == verdict.Cut && !can || killLeader && at == leads {
		kind = verdict.Kill
	}
	if !d.crash {
		return []blow{{v, kind, roleOf(v, leader)}}
	}
	var all []blow
	for _, other := range victims {
		if other.Part == Primary && v.Part == Primary || other.Part != Primary && other.Name == v.Name {
			all = append(all, blow{other, verdict.Kill, roleOf(other, leader)})
		}
	}
	return all
}

func roleOf(v Victim, leader string) verdict.Role {
	switch {
	case v.Part == Primary && v.Name == leader:
		return verdict.Leader
	case v.Part == Primary:
		return verdict.Follower
	case v.Part == Runner:
		return verdict.Runner
	}
	return verdict.Worker
}
