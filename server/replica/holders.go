package replica

import (
	"cmp"
	"math"
	"slices"

	"github.com/schedd/schedd/server/runlog"
)

const (
	// wanted is on how many primaries a log is kept, if there are so many.
	wanted = 3
	// enough is how many of them must have synced output before its worker may
	// forget it, if there are so many.
	enough = 2
)

// Holders returns which members of the group keep k's log: all, if they are not
// more than three. A member that comes or goes changes the holders of no more
// logs than it has to. All attempts of a run have the same holders, in the same
// order, which differs from run to run; the order of members means nothing.
func Holders(k runlog.Key, members []string) []string {
	ids := slices.Clone(members)
	slices.SortFunc(ids, func(a, b string) int {
		return cmp.Or(cmp.Compare(score(k.Run, b), score(k.Run, a)), cmp.Compare(a, b))
	})
	ids = slices.Compact(ids)
	return ids[:min(wanted, len(ids))]
}

// score ranks a member for a run (rendezvous hashing): FNV-1a over both, and the
// finalizer of MurmurHash3, since the rank depends on the upper bits, which FNV
// mixes badly for ids that differ in their last character.
func score(run, member string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for _, s := range [...]string{run, "\n", member} {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 0x100000001b3
		}
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// durable returns how much of a log is on as many disks as it takes, if its
// holders have these copies. One that is whole counts as more than any other has:
// what lies beyond the end is no output.
func durable(copies []have) int64 {
	if len(copies) == 0 {
		return 0
	}
	var amounts []int64
	for _, h := range copies {
		if h.whole() {
			h.durable = math.MaxInt64
		}
		amounts = append(amounts, h.durable)
	}
	slices.SortFunc(amounts, func(a, b int64) int { return cmp.Compare(b, a) })
	return amounts[min(enough, len(amounts))-1]
}

// answersFor returns how many of n holders must say what they have, so that
// whatever is durable is seen: of three, any two share one with any other two.
func answersFor(n int) int { return max(1, n-min(n, enough)+1) }

// sureFor is answersFor for a gateway, which must not even miss what was durable
// before another primary came or went: of two holders, one may have been alone,
// and one may be what is left of three.
func sureFor(n int) int { return max(answersFor(n), min(n, enough)) }
