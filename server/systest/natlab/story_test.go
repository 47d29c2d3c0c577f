//go:build e2e && linux

package natlab_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// story is what is known of a job's runs, from those who can't have agreed on it.
type story struct {
	job     string
	runs    []*schedv1.Run    // by instant
	effects map[string]effect // what processes wrote down, by run and attempt
}

// effect is what an attempt told.
type effect struct {
	run     string
	attempt uint64
	fence   uint64
	nominal time.Time
	job     string
	at      time.Time // when it ran
}

// readEffects reads what the attempts of a job told, and finds those that did so
// twice.
func readEffects(text, job string) (all map[string]effect, faults []error) {
	all = map[string]effect{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 6 {
			faults = append(faults, fmt.Errorf("a line of %d words in the file of effects: %q", len(f), line))
			continue
		}
		if f[4] != job {
			continue
		}
		attempt, err1 := strconv.ParseUint(f[1], 10, 32)
		fence, err2 := strconv.ParseUint(f[2], 10, 64)
		nominal, err3 := time.Parse(time.RFC3339Nano, f[3])
		at, err4 := readMoment(f[5])
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			faults = append(faults, fmt.Errorf("the file of effects has %q: %w", line, err))
		}
		key := f[0] + "/" + f[1]
		if _, twice := all[key]; twice {
			faults = append(faults, fmt.Errorf("run %s attempt %s was started twice", f[0], f[1]))
		}
		all[key] = effect{f[0], attempt, fence, nominal, f[4], at}
	}
	return all, faults
}

// readMoment reads seconds since 1970 with some decimals.
func readMoment(text string) (time.Time, error) {
	s, ns, _ := strings.Cut(strings.TrimSpace(text), ".")
	secs, err1 := strconv.ParseInt(s, 10, 64)
	nanos, err2 := strconv.ParseInt((ns + "000000000")[:9], 10, 64)
	return time.Unix(secs, nanos), errors.Join(err1, err2)
}

// gaps finds what is wrong with the runs of a job that ticks each second: each
// instant has to be there once, and to have succeeded.
func (s *story) gaps() (faults []error) {
	for i, r := range s.runs {
		now := r.GetNominalTime().AsTime()
		if r.GetPhase() != schedv1.Phase_PHASE_SUCCEEDED {
			faults = append(faults, fmt.Errorf("the run of %v is %v (%s): %v", now, r.GetPhase(), r.GetReason(), r))
		}
		if i == 0 {
			continue
		}
		if before := s.runs[i-1].GetNominalTime().AsTime(); now.Sub(before) != time.Second {
			faults = append(faults, fmt.Errorf("there is no second between %v and %v", before, now))
		}
	}
	return faults
}

// mismatches finds where processes and runs disagree: for each run one process
// ran, and nothing else.
func (s *story) mismatches() (faults []error) {
	known := map[string]*schedv1.Run{}
	for _, r := range s.runs {
		known[r.GetId()] = r
	}
	times := map[string]int{}
	for key, e := range s.effects {
		r := known[e.run]
		if r == nil || e.attempt > uint64(len(r.GetAttempts())) {
			faults = append(faults, fmt.Errorf("a process ran as %s, and there is no such attempt", key))
			continue
		}
		if a := r.GetAttempts()[e.attempt-1]; a.GetFence() != e.fence || !r.GetNominalTime().AsTime().Equal(e.nominal) {
			faults = append(faults, fmt.Errorf("a process ran as %+v, and its attempt is %v", e, a))
		}
		times[e.run]++
	}
	for id, r := range known {
		if times[id] != 1 {
			faults = append(faults, fmt.Errorf("%d processes ran for the run of %v, want one: %v", times[id], r.GetNominalTime().AsTime(), r))
		}
	}
	return faults
}

// mistakes finds what is wrong with the proof that a primary gives.
func (s *story) mistakes(proof *schedv1.VerifyLedgerResponse) (faults []error) {
	ran := int64(len(s.runs))
	for _, v := range proof.GetTriggers() {
		if v.GetRan() != ran || v.GetMissed() != 0 || v.GetNominal() != v.GetRan()+v.GetSkipped() || len(v.GetDifferences()) > 0 {
			faults = append(faults, fmt.Errorf("there are %d runs, and the ledger says %v", ran, v))
		}
	}
	if !proof.GetOk() || len(proof.GetTriggers()) != 1 {
		faults = append(faults, fmt.Errorf("the ledger is not proved: %v", proof))
	}
	return faults
}

// lateness is how late decisions were, and processes ran: the worst of each.
type lateness struct {
	decided, ran time.Duration
	slowest      *schedv1.Run // that ran so late
}

// String says what there is to say about it.
func (l lateness) String() string {
	text := fmt.Sprintf("decided at most %v late, running at most %v late", l.decided.Round(time.Millisecond), l.ran.Round(time.Millisecond))
	if l.ran-l.decided > time.Second {
		text += fmt.Sprintf(", which is %v", l.slowest)
	}
	return text
}

// late returns how late it was of what was due after since, or just before.
func (s *story) late(since time.Time) (l lateness) {
	for _, r := range s.runs {
		nominal := r.GetNominalTime().AsTime()
		if !nominal.After(since.Add(-time.Second)) { // with what was under way
			continue
		}
		l.decided = max(l.decided, r.GetCreatedTime().AsTime().Sub(nominal))
		for _, a := range r.GetAttempts() {
			if ran := s.effects[fmt.Sprint(r.GetId(), "/", a.GetNumber())].at.Sub(nominal); ran > l.ran || l.slowest == nil {
				l.ran, l.slowest = ran, r
			}
		}
	}
	return l
}

// miscounted says what is wrong with a log of counting.
func miscounted(log string) string {
	lines := strings.Split(strings.TrimSuffix(log, "\n"), "\n")
	for i, line := range lines[:len(lines)-1] {
		if line != fmt.Sprint("line ", i) {
			return fmt.Sprintf("line %d is %q", i, line)
		}
	}
	if end := lines[len(lines)-1]; end != fmt.Sprint("end ", len(lines)-1) {
		return fmt.Sprintf("after %d lines comes %q", len(lines)-1, end)
	}
	return ""
}
