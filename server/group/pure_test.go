package group

import (
	"maps"
	"testing"
	"time"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/server/peer"
)

// What the ten seconds of a primary that has caught up are counted from.
func TestReady(t *testing.T) {
	now := time.Unix(1000, 0)
	before := now.Add(-9 * time.Second)
	server := raftstore.Server{ID: "b", Address: "b:1"}
	heard := peer.Primary{Instance: "x", LastContact: now, AppliedIndex: 1000}
	for name, test := range map[string]struct {
		change func(v *raftstore.Server, p *peer.Primary)
		taken  time.Time
		want   time.Time // zero: it does not count
	}{
		"as it was":              {want: before},
		"taken in before":        {taken: before.Add(-time.Second), want: before},
		"taken in since":         {taken: before.Add(time.Second), want: now},
		"at another address":     {change: func(v *raftstore.Server, _ *peer.Primary) { v.Address = "n:1" }, want: now},
		"as another process":     {change: func(_ *raftstore.Server, p *peer.Primary) { p.Instance = "y" }, want: now},
		"votes":                  {change: func(v *raftstore.Server, _ *peer.Primary) { v.Voter = true }},
		"is silent":              {change: func(_ *raftstore.Server, p *peer.Primary) { p.LastContact = now.Add(-2 * fresh) }},
		"is behind":              {change: func(_ *raftstore.Server, p *peer.Primary) { p.AppliedIndex = 1000 - caughtUpWithin - 1 }},
		"is never to vote":       {change: func(v *raftstore.Server, _ *peer.Primary) { v.ID = "standby" }},
		"nothing is heard of it": {change: func(v *raftstore.Server, _ *peer.Primary) { v.ID = "c" }},
	} {
		t.Run(name, func(t *testing.T) {
			v, p := server, heard
			if test.change != nil {
				test.change(&v, &p)
			}
			all := ready(map[string]abreast{"b": {before, "b:1", "x"}}, []raftstore.Server{v}, map[string]peer.Primary{"b": p, "standby": p},
				map[string]time.Time{"b": test.taken}, func(id string) bool { return id == "standby" }, 1000, now)
			if got := all[v.ID].since; !got.Equal(test.want) {
				t.Errorf("since %v, want %v", got, test.want)
			}
		})
	}
}

// Whom Raft is to look for elsewhere, by what those say that answer.
func TestMoved(t *testing.T) {
	group := []raftstore.Server{{ID: "a", Address: "a:1"}, {ID: "b", Address: "b:1"}, {ID: "c", Address: "c:1"}}
	says := func(id, recorded, at string) other {
		return other{&peerv1.IntroduceResponse{PrimaryId: id, ClusterAddress: at, RecordedAddress: recorded}, at}
	}
	elsewhere := says("b", "b:1", "b:2")
	elsewhere.address = "balancer:2"
	for name, test := range map[string]struct {
		self    string // address of a
		answers []other
		want    map[string]string
	}{
		"nobody":                       {self: "a:1", answers: []other{says("b", "b:1", "b:1")}},
		"one":                          {self: "a:1", answers: []other{says("b", "b:1", "b:2"), says("c", "c:1", "c:1")}, want: map[string]string{"b:1": "b:2"}},
		"all":                          {self: "a:2", answers: []other{says("b", "b:1", "b:2"), says("c", "c:1", "c:2")}, want: map[string]string{"b:1": "b:2", "c:1": "c:2"}},
		"two exchange their places":    {self: "a:1", answers: []other{says("b", "b:1", "c:1"), says("c", "c:1", "b:1")}, want: map[string]string{"b:1": "c:1", "c:1": "b:1"}},
		"it took the place of another": {self: "b:1", answers: []other{says("c", "c:1", "c:2")}},
		"two at one address":           {self: "a:1", answers: []other{says("b", "b:1", "d:1"), says("c", "c:1", "d:1")}},
		"where another one may be":     {self: "a:1", answers: []other{says("b", "b:1", "c:1")}},
		"of another group":             {self: "a:1", answers: []other{says("b", "x:1", "b:2")}},
		"of a version without a word":  {self: "a:1", answers: []other{says("b", "", "b:2")}},
		"of no member":                 {self: "a:1", answers: []other{says("d", "d:1", "d:2")}},
		"not where it says it is":      {self: "a:1", answers: []other{elsewhere}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := moved(raftstore.Server{ID: "a", Address: test.self}, group, test.answers); !maps.Equal(got, test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

// Who joins does so through one that knows who leads: the first that is asked may be cut off
// from it, for as long as it likes.
func TestJoinsThroughWhoKnowsTheLeader(t *testing.T) {
	one := func(address, leader string, formed bool) other {
		return other{&peerv1.IntroduceResponse{Formed: formed, LeaderId: leader}, address}
	}
	for _, test := range []struct {
		others []other
		want   string
	}{
		{nil, ""},
		{[]other{one("a", "", false)}, ""},
		{[]other{one("a", "", true)}, "a"},
		{[]other{one("a", "c", true), one("b", "c", true)}, "a"},
		{[]other{one("a", "", true), one("b", "c", true), one("c", "c", true)}, "b"},
		{[]other{one("a", "", false), one("b", "", true), one("c", "", true)}, "b"},
	} {
		if o, formed := entrance(test.others); o.address != test.want || formed != (test.want != "") {
			t.Errorf("of %v it is %q (%v), want %q", test.others, o.address, formed, test.want)
		}
	}
}
