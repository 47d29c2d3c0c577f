package replica

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/schedd/schedd/server/runlog"
)

func TestHolders(t *testing.T) {
	k := runlog.Key{Run: "5k2v0hdq3c7mzq1ttn4x8a9bce", Attempt: 1}
	for _, c := range []struct{ members, want []string }{
		{nil, nil},
		{[]string{"a"}, []string{"a"}},
		{[]string{"b", "a"}, []string{"a", "b"}},
		{[]string{"a", "a", "b"}, []string{"a", "b"}},
		{[]string{"c", "a", "b"}, []string{"a", "b", "c"}},
	} {
		if got := slices.Sorted(slices.Values(Holders(k, c.members))); !slices.Equal(got, c.want) {
			t.Errorf("of %v: %v, want %v", c.members, got, c.want)
		}
	}
	// Who keeps what must be the same in any version: this is what it was in the
	// first.
	if got, want := Holders(k, []string{"p1", "p2", "p3", "p4", "p5"}), []string{"p3", "p2", "p4"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Holders are as many as there can be, the same for all attempts of a run and
// whatever the order of the members; one that comes or goes changes no more than
// it has to.
func TestHoldersAreStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z0-9-]{1,12}`), 1, 9, rapid.ID).Draw(t, "members")
		k := runlog.Key{Run: rapid.StringMatching(`[a-z0-9]{1,26}`).Draw(t, "run"), Attempt: rapid.Uint32().Draw(t, "attempt")}
		holders := Holders(k, members)
		if len(holders) != min(wanted, len(members)) {
			t.Fatalf("%v of %v", holders, members)
		}
		for i, id := range holders {
			if !slices.Contains(members, id) || slices.Contains(holders[:i], id) {
				t.Fatalf("%v of %v", holders, members)
			}
		}
		again := Holders(runlog.Key{Run: k.Run, Attempt: k.Attempt + 1, Fence: k.Fence + 9}, rapid.Permutation(members).Draw(t, "order"))
		if !slices.Equal(again, holders) {
			t.Fatalf("%v, then %v", holders, again)
		}
		gone := rapid.SampledFrom(members).Draw(t, "gone")
		left := Holders(k, slices.DeleteFunc(slices.Clone(members), func(id string) bool { return id == gone }))
		kept := slices.DeleteFunc(slices.Clone(holders), func(id string) bool { return id == gone })
		if len(left) < len(kept) || !slices.Equal(left[:len(kept)], kept) {
			t.Fatalf("%v keep it, and without %s %v", holders, gone, left)
		}
	})
}

// Each member gets its share, as a holder and as the first of them, though ids
// and runs look alike.
func TestHoldersAreEven(t *testing.T) {
	const runs, members = 10_000, 5
	var ids []string
	for i := range members {
		ids = append(ids, fmt.Sprintf("primary-%d", i+1))
	}
	keeps, first := map[string]int{}, map[string]int{}
	for i := range runs {
		holders := Holders(runlog.Key{Run: fmt.Sprintf("run-%08d", i)}, ids)
		first[holders[0]]++
		for _, id := range holders {
			keeps[id]++
		}
	}
	even := func(what string, counts map[string]int, want int) {
		for _, id := range ids {
			if n := counts[id]; n < want*95/100 || n > want*105/100 {
				t.Errorf("%s %s %d runs, an even share is %d", id, what, n, want)
			}
		}
	}
	even("keeps", keeps, runs*wanted/members)
	even("is first for", first, runs/members)
}

func TestDurable(t *testing.T) {
	for _, c := range []struct {
		amounts []int64
		want    int64
	}{
		{nil, 0},
		{[]int64{7}, 7},
		{[]int64{7, 5}, 5},
		{[]int64{0, 7}, 0},
		{[]int64{7, 5, 3}, 5},
		{[]int64{3, 7, 5}, 5},
		{[]int64{7, 7, 0}, 7},
	} {
		var copies []have
		for _, n := range c.amounts {
			copies = append(copies, have{durable: n})
		}
		if got := durable(copies); got != c.want {
			t.Errorf("%v: %d, want %d", c.amounts, got, c.want)
		}
	}
	whole := have{durable: 5, length: 5, sealed: true} // what another has beyond the end is no output
	if got := durable([]have{{durable: 7}, whole, {}}); got != 7 {
		t.Errorf("of a copy that is whole and a longer one %d bytes count", got)
	}
}

// Whoever answers, what is durable is seen.
func TestAnswersFor(t *testing.T) {
	for n := 1; n <= wanted; n++ {
		need := answersFor(n)
		if need < 1 || need > n || need+min(n, enough) <= n {
			t.Errorf("of %d, %d answer and %d have it: they need not share one", n, need, min(n, enough))
		}
		if sure := sureFor(n); sure < need || sure > n || sure < min(n, enough) {
			t.Errorf("of %d, a gateway asks for %d", n, sure)
		}
	}
}
