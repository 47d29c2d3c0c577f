package peer

import (
	"cmp"
	"hash/fnv"
	"maps"
	"slices"
)

// What is a fair share of the sessions, and how fast it is come by. Streams are
// renewed each hour anyway, so there is no hurry, and what looks uneven while
// primaries come and go is not worth a move.
const (
	unevenBy   = 4  // a gateway sheds when it has more than a quarter above the mean,
	unevenMin  = 4  // and at least so many,
	shedAtOnce = 20 // and then at most a twentieth of all its sessions in a minute
)

// excess returns how many sessions each gateway shall shed, of what it has: none
// when it has about its share. It is pure.
func excess(has map[string]int) map[string]int {
	total := 0
	for _, n := range has {
		total += n
	}
	shed := map[string]int{}
	if len(has) < 2 {
		return shed
	}
	mean := (total + len(has) - 1) / len(has)
	for g, n := range has {
		if over := n - mean; over > mean/unevenBy && over >= unevenMin {
			shed[g] = min(over, max(1, n/shedAtOnce))
		}
	}
	return shed
}

// assign shares addresses out among gateways, each to one: that with the
// greatest hash of both, so that one that comes or goes moves no others than its
// own (rendezvous hashing, Thaler and Ravishankar 1998). It is pure.
func assign(addresses, gateways []string) map[string][]string {
	lists := map[string][]string{}
	for _, g := range gateways {
		lists[g] = nil
	}
	for _, a := range slices.Sorted(slices.Values(addresses)) {
		if len(gateways) > 0 {
			g := slices.MaxFunc(gateways, func(x, y string) int {
				return cmp.Or(cmp.Compare(weight(a, x), weight(a, y)), cmp.Compare(x, y))
			})
			lists[g] = append(lists[g], a)
		}
	}
	return lists
}

func weight(address, gateway string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(address + "\x00" + gateway)) // never fails
	x := h.Sum64()
	// FNV's upper bits hardly depend on the last bytes; a finisher (that of
	// MurmurHash3) makes all bits depend on all.
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// keys returns the keys of m, sorted.
func keys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
