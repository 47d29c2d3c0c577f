package systest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// clockChange is when the clocks of a zone change, and what they show then: what is lost, or
// shown twice, is between the two.
type clockChange struct {
	zone     string
	at       time.Time
	from, to time.Time // as if they were UTC
}

// soon is within what time a world looks for changes of clocks, when it makes a job.
const soon = 7 * time.Hour

// clockChanges returns those that come within soon in the zones that stories use.
func clockChanges(now time.Time) (all []clockChange) {
	for _, zone := range zones {
		in, err := time.LoadLocation(zone)
		if err != nil {
			panic(err)
		}
		for at := now.UTC().Truncate(time.Minute); at.Before(now.Add(soon)); at = at.Add(time.Minute) {
			if from, to := wall(at.Add(-time.Minute), in).Add(time.Minute), wall(at, in); !from.Equal(to) {
				all = append(all, clockChange{zone, at, from, to})
			}
		}
	}
	return all
}

// fixedHours is a trigger that names hours, and so cares what becomes of clocks: around a
// change that comes soon, if there is one, and the next two of some zone if not.
func fixedHours(d *rand.Rand, now time.Time) func(*schedv1.Job) {
	zone := one(d, zones...)
	in, err := time.LoadLocation(zone)
	if err != nil {
		panic(err)
	}
	from, to := wall(now, in), wall(now.Add(time.Hour), in)
	if changes := clockChanges(now); len(changes) > 0 {
		c := one(d, changes...)
		zone, from, to = c.zone, c.from, c.to
	}
	const around = 20 * time.Minute
	if to.Before(from) {
		from, to = to, from
	}
	var hours, minutes []string
	for h := from.Add(-around).Truncate(time.Hour); h.Before(to.Add(around)); h = h.Add(time.Hour) {
		hours = append(hours, fmt.Sprint(h.Hour()))
	}
	for range 2 + d.IntN(4) {
		minutes = append(minutes, fmt.Sprint(d.IntN(60)))
	}
	return cron(one(d, "", "", "0,30 ", "15 ")+strings.Join(minutes, ",")+" "+strings.Join(hours, ",")+" * * *", zone)
}

// anyTriggers gives a job some reasons to run. What begins at random does so by up to less
// than a minute later, which is what checkOverdue waits for.
func (c *chaos) anyTriggers(j *schedv1.Job) {
	d := c.dice
	for range 1 + d.IntN(2) {
		often := []func(*schedv1.Job){
			every(time.Duration(5+d.IntN(200)) * time.Second),
			cron(one(d, "* * * * *", "*/2 * * * *", "3-59/5 * * * *", "0,20,40 * * * * *", "15 10,20,30,40,50 * * * *"), one(d, zones...)),
		}
		rare := []func(*schedv1.Job){
			fixedHours(d, time.Now()),
			at(time.Now().Add(upTo(d, time.Hour)).Truncate(time.Second).Add(time.Second)),
		}
		which := d.IntN(4)
		if d.IntN(2) == 0 && len(clockChanges(time.Now())) > 0 {
			which = len(often) // there will not be many of these changes
		}
		slices.Concat(often, rare)[which](j)
		t := j.GetTriggers()[len(j.GetTriggers())-1]
		t.Jitter = one(d, nil, nil, durationpb.New(upTo(d, 50*time.Second).Truncate(time.Millisecond)))
		t.Disabled = d.IntN(10) == 0
		if t.GetCron() != nil {
			t.GetCron().DstGap = one(d, 0, schedv1.DstGap_DST_GAP_RUN_AFTER, schedv1.DstGap_DST_GAP_SKIP)
			t.GetCron().DstOverlap = one(d, 0, schedv1.DstOverlap_DST_OVERLAP_FIRST, schedv1.DstOverlap_DST_OVERLAP_SECOND, schedv1.DstOverlap_DST_OVERLAP_BOTH)
		}
		if which < len(often) && d.IntN(4) == 0 {
			t.StartTime, t.EndTime = anyWindow(d)
		}
	}
}

// anyWindow is when a trigger counts: from now on or from a little later, and for long enough
// that what comes due each few minutes does so in it. Its edges are instants at which much
// is due.
func anyWindow(d *rand.Rand) (from, to *timestamppb.Timestamp) {
	begin := one(d, -time.Hour, upTo(d, 20*time.Minute))
	end := max(begin, 0) + 15*time.Minute + upTo(d, time.Hour)
	edge := func(in time.Duration) *timestamppb.Timestamp { return stamp(time.Now().Add(in).Truncate(time.Minute)) }
	return one(d, nil, edge(begin)), one(d, nil, edge(end))
}

// The answers to a change of clocks are tried: what triggers of worlds that are born before one
// are due at depends on them.
func TestClocksChangeInWorlds(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 0))
	changed := 0
	for _, moment := range moments {
		born := moment.Add(-20 * time.Minute)
		changes := clockChanges(born)
		if len(changes) == 0 {
			continue
		}
		changed++
		matter := map[string]int{}
		const tries = 40
		for range tries {
			j := job("j", fixedHours(dice, born))
			due := func(gap schedv1.DstGap, overlap schedv1.DstOverlap) string {
				c := j.GetTriggers()[0].GetCron()
				c.DstGap, c.DstOverlap = gap, overlap
				return fmt.Sprint(instants(j.GetTriggers()[0], born, born.Add(soon)))
			}
			if due(schedv1.DstGap_DST_GAP_RUN_AFTER, 0) != due(schedv1.DstGap_DST_GAP_SKIP, 0) {
				matter["dst_gap"]++
			}
			if due(0, schedv1.DstOverlap_DST_OVERLAP_FIRST) != due(0, schedv1.DstOverlap_DST_OVERLAP_SECOND) {
				matter["dst_overlap"]++
			}
		}
		if matter["dst_gap"]+matter["dst_overlap"] < tries/2 {
			t.Errorf("a world is born at %v, clocks change as %v, and of %d triggers that matters to %v", born, changes, tries, matter)
		}
	}
	if changed < 4 {
		t.Errorf("clocks change at %d of the moments", changed)
	}
}
