package systest

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// dayStart is a noon before the clocks change: to summer time in Berlin and
// London (2000-03-26T01:00Z), and back from it in Sydney (2000-03-25T16:00Z) and,
// by half an hour, on Lord Howe Island (2000-03-25T15:00Z).
var dayStart = time.Date(2000, 3, 25, 12, 0, 0, 0, time.UTC)

// zones change that day, in both directions and by different amounts, or don't.
var zones = []string{"Australia/Sydney", "Europe/Berlin", "Australia/Lord_Howe", "Europe/London", "America/New_York", "Asia/Kolkata", ""}

// hours are the expressions of the day: fixed and elastic, by the hour and the
// minute, in and around the hours that the clocks jump over or repeat.
var hours = []string{
	"30 2 * * *", "0 2 * * *", "30 1 * * *", "0 3 * * *", "59 1,2,3 * * *", "15 0-23 * * *",
	"*/15 * * * *", "*/20 1-4 * * *", "0 */2 * * *", "10,40 2 * * 0", "0 12 26 * *", "5 4 * 3 6",
	"45 1 25,26 3 *", "0 0 * * *", "30 * * * *", "*/30 0 2 * * *", "15,45 30 1,2 * * *", "7 */3 26 * 0",
}

// defineDay defines n jobs of all kinds. Their runs may overlap and find a slot, so
// that none has to be skipped. Every expression meets every zone, if there are
// enough, and in each zone every answer to a change of the clocks.
func (w *world) defineDay(n int, dice *rand.Rand) {
	w.Helper()
	gaps := []schedv1.DstGap{schedv1.DstGap_DST_GAP_UNSPECIFIED, schedv1.DstGap_DST_GAP_SKIP}
	overlaps := []schedv1.DstOverlap{0, schedv1.DstOverlap_DST_OVERLAP_SECOND, schedv1.DstOverlap_DST_OVERLAP_BOTH}
	catchUps := []schedv1.CatchUp{0, schedv1.CatchUp_CATCH_UP_ALL, schedv1.CatchUp_CATCH_UP_NONE}
	selectors := []string{"", "zone=eu", "!spot", "zone in (eu,au)"}
	met := 0
	for i := range n {
		j := job(fmt.Sprintf("day-%03d", i), selector(selectors[dice.IntN(len(selectors))]),
			policy(&schedv1.Policy{
				Overlap: schedv1.Overlap_OVERLAP_ALLOW, CatchUp: catchUps[i%3], CatchUpWindow: seconds(7200),
				OnLost: schedv1.OnLost_ON_LOST_RETRY,
			}))
		w.takes(j.GetName(), time.Duration(dice.IntN(40))*time.Second)
		switch i % 10 {
		case 0, 1:
			every(time.Duration(5+dice.IntN(40)) * time.Minute)(j)
			j.Triggers[0].GetEvery().Phase = seconds(float64(dice.IntN(200)))
		case 2:
			at(dayStart.Add(time.Hour + upTo(dice, 22*time.Hour)).Truncate(time.Second))(j)
		case 3: // two reasons to run, one of them for a while only
			cron("0 * * * *", "")(j)
			cron("*/10 2 * * *", "Europe/Berlin")(j)
			from := dayStart.Add(upTo(dice, 12*time.Hour)).Truncate(time.Second)
			j.Triggers[0].StartTime, j.Triggers[0].EndTime = stamp(from), stamp(from.Add(5*time.Hour))
		default:
			round := met / len(hours)
			cron(hours[met%len(hours)], zones[round%len(zones)])(j)
			j.Triggers[0].GetCron().DstGap = gaps[(met+round)%len(gaps)]
			j.Triggers[0].GetCron().DstOverlap = overlaps[(met+round)%len(overlaps)]
			met++
		}
		if i%7 == 0 {
			j.Triggers[0].Jitter = seconds(float64(1 + dice.IntN(90)))
		}
		w.define(j)
	}
}

// A whole day with 200 jobs, in which the clocks change in both directions. The
// primary is stopped or killed every few hours, and so is some agent. All that the
// calendar asks for is decided once, and what is decided to run runs well.
func TestDay(t *testing.T) {
	length, jobs := 26*time.Hour, 200
	if testing.Short() {
		length, jobs = 6*time.Hour, 60
	}
	story(t, func(w *world) {
		dice := rand.New(rand.NewPCG(max(*seed, 1), 0))
		w.waitUntil(dayStart.Add(-time.Minute))
		w.startPrimary()
		w.startWorker("berlin", map[string]string{"zone": "eu"}, 20)
		w.startWorker("sydney", map[string]string{"zone": "au"}, 20)
		w.startWorker("spot", map[string]string{"zone": "eu", "spot": ""}, 10)
		w.awaitOnline()
		w.defineDay(jobs, dice)
		for end := dayStart.Add(length); time.Now().Before(end); {
			w.wait(upTo(dice, 2*time.Hour))
			k := w.workers[dice.IntN(len(w.workers))]
			k.crash()
			w.wait(upTo(dice, 10*time.Minute))
			k.start()
			w.wait(upTo(dice, 2*time.Hour))
			down := upTo(dice, 30*time.Second)
			if dice.IntN(3) == 0 {
				down = upTo(dice, 40*time.Minute)
			}
			if dice.IntN(2) == 0 {
				w.restart(down)
				continue
			}
			w.stopPrimary()
			time.Sleep(down)
			w.startPrimary()
		}
		w.awaitOnline()
		w.wait(time.Minute)
		w.settle(time.Hour)
		w.checkAll()
		w.checkOutages(5 * time.Second)
		w.checkAllWell()
		w.Logf("%d jobs, %d runs, %d lives of the primary", len(w.jobs()), len(w.runs("")), len(w.outages)+1)
	})
}
