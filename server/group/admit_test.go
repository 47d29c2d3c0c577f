package group

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/raftstore"
)

// Who is taken into the group, and as what, for all that the leader may have found
// out. The group is a, b and c; the process that has b's vote is "old".
func TestAdmit(t *testing.T) {
	answer := func(id, instance string) *peerv1.IntroduceResponse {
		return &peerv1.IntroduceResponse{PrimaryId: id, Instance: instance}
	}
	voter := func(address string) raftstore.Server {
		return raftstore.Server{ID: "b", Address: address, Voter: true}
	}
	none := func(id, address string) raftstore.Server { return raftstore.Server{ID: id, Address: address} }
	for name, test := range map[string]struct {
		claim
		want raftstore.Server
		code codes.Code
		says string
	}{
		"a new one": {
			claim: claim{id: "d", address: "d:1", instance: "new", empty: true, here: answer("d", "new")}, want: none("d", "d:1"),
		},
		"a new one, which does not answer": {
			claim: claim{id: "d", address: "d:1", instance: "new", empty: true}, code: codes.Unavailable, says: "look at its --cluster-advertise",
		},
		"a new one, at whose address another one answers": {
			claim: claim{id: "d", address: "d:1", instance: "new", empty: true, here: answer("e", "x")}, code: codes.Unavailable, says: "look at its --cluster-advertise",
		},
		"two new ones of one name and address": {
			claim: claim{id: "d", address: "d:1", instance: "new", empty: true, here: answer("d", "x")}, code: codes.AlreadyExists, says: "two primaries are called d",
		},
		"at the address of another one": {
			claim: claim{id: "d", address: "b:1", instance: "new", empty: true, here: answer("d", "new")}, code: codes.FailedPrecondition, says: "the address of b",
		},
		"one that was removed": {
			claim: claim{id: "d", address: "d:1", instance: "new", here: answer("d", "new")}, code: codes.FailedPrecondition, says: "was removed",
		},
		"lost its disk": {
			claim: claim{id: "b", address: "b:1", instance: "new", empty: true, here: answer("b", "new"), there: answer("b", "new")}, want: none("b", "b:1"),
		},
		"lost its disk, and is linked": {
			claim: claim{id: "b", address: "b:1", instance: "new", empty: true, here: answer("b", "new"), there: answer("b", "new"), heard: "new"}, want: none("b", "b:1"),
		},
		"lost its disk, and was heard of before that just now": {
			claim: claim{id: "b", address: "b:1", instance: "new", empty: true, here: answer("b", "new"), there: answer("b", "new"), heard: "old"},
			code:  codes.Unavailable, says: "try again",
		},
		"lost its host": {
			claim: claim{id: "b", address: "n:1", instance: "new", empty: true, here: answer("b", "new")}, want: none("b", "n:1"),
		},
		"lost its host, where another one is now": {
			claim: claim{id: "b", address: "n:1", instance: "new", empty: true, here: answer("b", "new"), there: answer("e", "x")}, want: none("b", "n:1"),
		},
		"a namesake": {
			claim: claim{id: "b", address: "n:1", instance: "new", empty: true, here: answer("b", "new"), there: answer("b", "old")},
			code:  codes.AlreadyExists, says: "two primaries are called b, at b:1 and n:1",
		},
		"a namesake that advertises the same": {
			claim: claim{id: "b", address: "b:1", instance: "new", empty: true, here: answer("b", "old"), there: answer("b", "old")},
			code:  codes.AlreadyExists, says: "two primaries are called b",
		},
		"a namesake of one that hears us, and that we do not reach": {
			claim: claim{id: "b", address: "n:1", instance: "new", empty: true, here: answer("b", "new"), heard: "old"}, code: codes.Unavailable, says: "try again",
		},
		"a namesake of an older version": {
			claim: claim{id: "b", address: "n:1", empty: true, here: answer("b", "new"), there: answer("b", "old")}, code: codes.AlreadyExists, says: "two primaries are called b",
		},
		"moved": {
			claim: claim{id: "b", address: "n:1", instance: "new", here: answer("b", "new")}, want: voter("n:1"),
		},
		"moved, by an older version": {
			claim: claim{id: "b", address: "n:1", here: answer("b", "new")}, want: voter("n:1"),
		},
		"has another name for its address": {
			claim: claim{id: "b", address: "n:1", instance: "old", here: answer("b", "old"), there: answer("b", "old"), heard: "old"}, want: voter("n:1"),
		},
		"a copy of its data": {
			claim: claim{id: "b", address: "n:1", instance: "new", here: answer("b", "new"), there: answer("b", "old")}, code: codes.AlreadyExists, says: "two primaries are called b",
		},
		"moved while it was asked for": {
			claim: claim{id: "b", address: "n:1", instance: "new", here: answer("b", "new"), asked: "elsewhere:1"}, code: codes.Unavailable, says: "try again",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := test.claim
			c.servers = []raftstore.Server{{ID: "a", Address: "a:1", Voter: true}, {ID: "b", Address: "b:1", Voter: true}, {ID: "c", Address: "c:1", Voter: true}}
			if c.asked == "" && slices.ContainsFunc(c.servers, func(v raftstore.Server) bool { return v.ID == c.id }) {
				c.asked = c.id + ":1"
			}
			v, err := admit(c)
			if status.Code(err) != test.code || err == nil && v != test.want || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("%+v, %v; want %+v, %v: %q", v, err, test.want, test.code, test.says)
			}
		})
	}
}
