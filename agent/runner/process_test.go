//go:build unix

package runner

import (
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner/cgroup"
)

// A job has become another user, by sudo or as a setuid program does, and its runner is not
// root: then nobody can end it without a control group. Whoever reads how the attempt ended
// is told that it may not have, whatever it was to be ended for.
func TestWhatCouldNotBeEndedIsTold(t *testing.T) {
	for why, want := range map[cause]string{
		leaseExpired: "its lease expired, ended with SIGKILL; 1 process could not be ended and may still run: the runner has no permission to signal a program that runs as another user",
		killed:       "killed on request, ended with SIGKILL; 1 process could not be ended and may still run: the runner has no permission to signal a program that runs as another user",
	} {
		p := &process{hard: time.Now(), sent: map[ref]sent{{pid: 7}: refused, {pid: 8}: kill}}
		if got := p.reason(Exit{}, why, cgroup.Usage{}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

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

// A process is spared no longer than it may take in all, however late it is asked to end,
// and whatever grace it is given; and never for more than an hour.
func TestGraceIsBounded(t *testing.T) {
	began := time.Unix(1_800_000_000, 0)
	for _, test := range []struct {
		most, asked, grace time.Duration
		want               time.Duration // from the start to SIGKILL
	}{
		{0, time.Minute, 10 * time.Second, time.Minute + 10*time.Second},
		{0, time.Minute, 1<<63 - 1, time.Minute + MaxKillGrace},
		{0, time.Minute, -1, time.Minute},
		{10 * time.Minute, time.Minute, 10 * time.Second, time.Minute + 10*time.Second},
		{10 * time.Minute, time.Minute, 1<<63 - 1, 10 * time.Minute},
		{10 * time.Minute, 10*time.Minute - time.Second, time.Minute, 10 * time.Minute},
		{10 * time.Minute, time.Hour, time.Minute, time.Hour}, // a machine that was asleep
	} {
		p := newProcess(&Local{}, Spec{KillGrace: test.grace})
		p.most = test.most
		p.began(0, began)
		asked := began.Add(test.asked)
		p.hurry(asked, p.grace)
		p.spareNow(asked)
		due := began.Add(test.want)
		if early := due.Add(-1); !early.Before(asked) && p.killDue(early) || !p.killDue(due) {
			t.Errorf("with at most %v, asked to end after %v with a grace of %v: SIGKILL is due after %v, want %v", test.most, test.asked, test.grace, p.killAt.Sub(began), test.want)
		}
	}
}
