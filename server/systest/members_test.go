package systest

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore"
)

const (
	// memberWait is how long a change of the group takes at most while some of it ail.
	memberWait = 8 * time.Minute
	// memberAsk is how long the leader gets to carry one out, before it is looked up anew who
	// leads.
	memberAsk = 15 * time.Second
	// readyWait is how long people wait for one that was started before they go home.
	readyWait = time.Minute
)

// newMember is a primary that was never started.
func (w *world) newMember(id, dir string) *member {
	return &member{w: w, id: id, host: id, disk: raftstore.NewMemory(), files: newFileDisk(), dir: filepath.Join(w.dir, dir), link: w.net.newLink(id), older: w.older}
}

// toMembers is how the group may change while a minority of it, or none, ails. People take
// no majority away, and no disk while some output may be on no other.
func (c *groupChaos) toMembers() map[string]func() {
	things := map[string]func(){}
	if len(c.ails) < c.minority() {
		things["primaries are upgraded"] = c.upgrade
	}
	if len(c.group) == c.born {
		things["the group grows"] = c.grow
	} else if len(c.ails) == 0 {
		things["the group shrinks"] = c.shrink
	}
	if len(c.ails) > 0 && !c.copies {
		things["a primary that ails is replaced"] = c.replaceIll
	}
	return things
}

// grow has two more primaries join, one after the other. What keeps one that ails from all
// others keeps it from these, too.
func (c *groupChaos) grow() {
	c.Helper()
	if len(c.ails) > 0 {
		c.with["the group grows while one ails"]++
	}
	for range 2 {
		c.joined++
		id := fmt.Sprint("p", len(c.group)+1)
		m := c.newMember(id, fmt.Sprint(id, "-", c.joined))
		m.joins, m.older = true, false
		c.group = append(c.group, m)
		c.ailAgain()
		m.start()
		c.awaitVote(m)
	}
}

// shrink has those that joined leave for good, one after the other, as the guide says.
func (c *groupChaos) shrink() {
	c.Helper()
	for len(c.group) > c.born {
		c.awaitCopies()
		m := c.group[len(c.group)-1]
		c.remove(m)
		m.leave()
		c.net.troubles.ends("down", m.host, "") // from now on that is no trouble of the group
		c.group, c.left = c.group[:len(c.group)-1], append(c.left, m)
	}
	c.awaitCopies()
}

// replaceIll gives up a primary that ails: it is removed, and joins again with nothing. Others
// may ail meanwhile, and then copies of logs are not waited for, so that nothing else is
// given up until there are.
func (c *groupChaos) replaceIll() {
	c.Helper()
	if len(c.ails) > 1 {
		c.with["another one ails"]++
	}
	ill := slices.DeleteFunc(slices.Clone(c.group), func(m *member) bool {
		_, ails := c.ails[m]
		return !ails
	})
	m := one(c.dice, ill...)
	if m.server != nil {
		m.kill()
	}
	c.remove(m)
	m.wipe()
	c.cure(m)
	c.copies = true
	c.awaitVote(m)
}

// leads returns who leads and what that says of the group; nil when nobody does. Any other
// may be cut off, and tell what was.
func (c *groupChaos) leads() (*member, *schedv1.ClusterStatus) {
	return c.primariesAmiss(func(string, ...any) {})
}

// remove takes a primary out of the group. That it is not there may be the answer to having
// asked again.
func (c *groupChaos) remove(m *member) {
	c.Helper()
	c.await("the removal of "+m.id, memberWait, func() bool {
		l, _ := c.leads()
		if l == nil {
			return false
		}
		ctx, cancel := context.WithTimeout(c.Context(), memberAsk)
		defer cancel()
		_, err := l.own.clusters.RemovePrimary(ctx, &schedv1.RemovePrimaryRequest{Id: m.id})
		return err == nil || status.Code(err) == codes.NotFound
	})
}

// awaitVote waits until a primary votes.
func (c *groupChaos) awaitVote(m *member) {
	c.Helper()
	c.await("the vote of "+m.id, memberWait, func() bool {
		_, s := c.leads()
		return slices.ContainsFunc(s.GetPrimaries(), func(p *schedv1.Primary) bool { return p.GetId() == m.id && p.GetVoter() })
	})
}

// awaitCopies waits until all vote and nobody lacks a log, which takes that nobody ails.
func (c *groupChaos) awaitCopies() {
	c.Helper()
	c.await("copies of all logs", memberWait, func() bool {
		_, s := c.leads()
		return len(s.GetPrimaries()) == len(c.group) && !slices.ContainsFunc(s.GetPrimaries(), func(p *schedv1.Primary) bool {
			return !p.GetVoter() || p.LogsMissing == nil || p.GetLogsMissing() > 0
		})
	})
	c.copies = false
}

// Primaries that have left the group for good are no trouble of it: what is missed or given up
// minutes later has no excuse. Before they left they were of the group.
func TestChecksBiteAfterAShrink(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		c := &groupChaos{chaos: chaos{world: w}, born: 3}
		c.grow()
		w.wait(10 * time.Minute) // what began with the group is over
		c.shrink()
		left := time.Now()
		w.wait(10 * time.Minute)
		w.put["j"] = []put{{left, job("j", policy(&schedv1.Policy{LostAfter: seconds(60)}))}}
		l := w.newLedgerOf("j", nil)
		w.bites([]bite{
			{"missed, minutes later", func() {
				l.checkCause("t1", &schedv1.LedgerSpan{Decision: schedv1.Decision_DECISION_MISSED}, left.Add(5*time.Minute))
			}, "somebody could decide that in time"},
			{"given up, minutes later", func() {
				w.checkLost(&schedv1.Run{Job: "j", FinishedTime: stamp(left.Add(8 * time.Minute)), Attempts: []*schedv1.Attempt{{
					Outcome: lost, AssignedTime: stamp(left.Add(5 * time.Minute)), Reason: "its worker has been silent for longer than lost_after",
				}}})
			}, "can have been silent for 0s only"},
		})
		if w.net.troubles.longest(left.Add(-time.Minute), left, w.ofPrimaries) == 0 {
			w.Error("that primaries stopped, which were of the group, counts for nothing")
		}
	})
}
