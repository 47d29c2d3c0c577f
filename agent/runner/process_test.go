//go:build unix

package runner

import (
	"testing"
	"time"
)

// The grace lies between SIGTERM and SIGKILL, however late the first is: a process is
// always asked before it is made to end, unless it was given no grace at all.
func TestGraceBeginsWithTheSignal(t *testing.T) {
	asked := time.Unix(1_800_000_000, 0)
	late := asked.Add(time.Hour) // a laptop slept
	for _, test := range []struct {
		graces []time.Duration // one after the other, at the same time
		want   time.Duration   // between the signals
	}{
		{[]time.Duration{10 * time.Second}, 10 * time.Second},
		{[]time.Duration{10 * time.Second, time.Minute}, 10 * time.Second},
		{[]time.Duration{time.Minute, time.Second}, time.Second},
		{[]time.Duration{time.Minute, 0}, 0},
	} {
		p := new(process)
		for _, grace := range test.graces {
			p.hurry(asked, grace)
		}
		p.spareNow(late)
		if at := late.Add(test.want); p.killDue(at.Add(-1)) || !p.killDue(at) {
			t.Errorf("graces of %v: SIGKILL is due %v after SIGTERM, want %v", test.graces, p.killAt.Sub(late), test.want)
		}
		p.hurry(late.Add(time.Second), time.Second) // asked again
		if again := min(test.want, 2*time.Second); p.killDue(late.Add(again-1)) || !p.killDue(late.Add(again)) {
			t.Errorf("graces of %v, and of 1 s after 1 s: SIGKILL is due %v after SIGTERM, want %v", test.graces, p.killAt.Sub(late), again)
		}
	}
}
