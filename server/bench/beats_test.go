package bench

import (
	"testing"
	"time"

	"github.com/schedd/schedd/server/bench/measure"
)

func startOf(job string, nominal int64, at time.Time) measure.Start {
	return measure.Start{Occurrence: measure.Occurrence{Job: job, Nominal: nominal}, At: at}
}

func TestSilenceAfter(t *testing.T) {
	kill := time.Unix(1000, 550_000_000)
	ago := func(d time.Duration) time.Time { return kill.Add(d) }
	for name, test := range map[string]struct {
		starts []measure.Start
		want   silence
		over   bool
	}{
		"nothing": {nil, silence{}, false},
		"what came due before does not count, however late it is started": {
			[]measure.Start{startOf("beat-0", 1000, ago(time.Second)), startOf("beat-5", 1000, ago(time.Second))}, silence{}, false,
		},
		"another job is not the one of full seconds": {
			[]measure.Start{startOf("beat-6", 1000, ago(2*time.Second))}, silence{any: 2 * time.Second}, false,
		},
		"the first of each counts, in whatever order they are written down": {
			[]measure.Start{
				startOf("beat-0", 1002, ago(1900*time.Millisecond)), startOf("beat-0", 1001, ago(1800*time.Millisecond)),
				startOf("beat-6", 1000, ago(1700*time.Millisecond)), startOf("beat-7", 1000, ago(1600*time.Millisecond)),
			},
			silence{full: 1800 * time.Millisecond, any: 1600 * time.Millisecond},
			true,
		},
		"the one of full seconds may be the first": {
			[]measure.Start{startOf("beat-0", 1001, ago(time.Second))}, silence{full: time.Second, any: time.Second}, true,
		},
	} {
		if got, over := silenceAfter(kill, test.starts); got != test.want || over != test.over {
			t.Errorf("%s: %v, over: %v; want %v, %v", name, got, over, test.want, test.over)
		}
	}
}

// Each job is due once in each second, at a time of its own.
func TestBeats(t *testing.T) {
	b := &beats{effects: &effects{name: "/e"}, start: time.Unix(1000, 0)}
	phases := map[time.Duration]bool{}
	for i, j := range b.jobs(time.Unix(2000, 0)) {
		tr := j.GetTriggers()[0]
		if !tr.GetStartTime().AsTime().Equal(b.start) || tr.GetEndTime().AsTime().Unix() != 2000 {
			t.Errorf("%s is due from %v to %v", j.GetName(), tr.GetStartTime().AsTime(), tr.GetEndTime().AsTime())
		}
		if j.GetName() == fullBeat != (tr.GetCron() != nil) || j.GetName() != jobName(beatPrefix, i) {
			t.Errorf("job %d is %v", i, j)
		}
		phases[tr.GetEvery().GetPhase().AsDuration()] = true
	}
	if len(phases) != beatJobs {
		t.Errorf("%d different phases, want %d", len(phases), beatJobs)
	}
	if b.jobs(time.Time{})[0].GetTriggers()[0].GetEndTime() != nil {
		t.Error("without an end they end")
	}
}

func TestSilences(t *testing.T) {
	var all silences
	for i := range 4 {
		all.add(silence{full: time.Duration(i+1) * time.Second, any: time.Second / 2})
	}
	if all.full(0.5) != 2 || all.full(1) != 4 || all.any(1) != 0.5 {
		t.Errorf("median %v, worst %v, of any %v", all.full(0.5), all.full(1), all.any(1))
	}
}
