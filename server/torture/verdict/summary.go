package verdict

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// Summary counts what was seen. What primaries tell is counted once, as the first
// of them tells it.
type Summary struct {
	Expected, Decided, Missed, Twice int // occurrences
	Runs, Succeeded                  int
	Attempts                         int
	ByOutcome                        map[Outcome]int
	Begun, Ended                     int // side effects that were read
	Whole                            int // runs whose logs are, at each primary
	LogBytes                         int64
	LeaderKills                      int
	Faults                           map[Role]map[Kind]int // that were carried out
	FaultsFailed                     int                   // that were tried, and could not be
	// How late, at most: the decision, and the start of the first attempt by its
	// worker's clock.
	SlowestDecision, SlowestStart time.Duration
	SlowestRun                    string // that started so late
	Primaries                     int    // that were asked
}

func summarize(rec Record) Summary {
	s := Summary{ByOutcome: map[Outcome]int{}, Faults: map[Role]map[Kind]int{}, Primaries: len(rec.Views)}
	for _, e := range rec.Effects {
		if e.Stage == Begin {
			s.Begun++
		} else {
			s.Ended++
		}
	}
	for _, f := range rec.Faults {
		if f.Failed != "" {
			s.FaultsFailed++
			continue
		}
		if s.Faults[f.Role] == nil {
			s.Faults[f.Role] = map[Kind]int{}
		}
		s.Faults[f.Role][f.Kind]++
	}
	s.LeaderKills = s.Faults[Leader][Kill]
	for _, j := range rec.Jobs {
		s.Expected += len(j.Due())
	}
	if len(rec.Views) == 0 {
		return s
	}
	first := rec.Views[0]
	for _, j := range rec.Jobs {
		s.occurrences(j, first)
	}
	broken := map[string]bool{}
	for _, v := range rec.Views {
		for _, r := range v.Runs {
			for _, a := range r.Attempts {
				broken[r.ID] = broken[r.ID] || !a.Log.Read || a.Log.Problem != ""
			}
		}
	}
	for _, r := range first.Runs {
		s.run(r, broken[r.ID])
	}
	return s
}

// occurrences counts what became of what was due.
func (s *Summary) occurrences(j Job, v View) {
	for _, at := range j.Due() {
		n := 0
		for _, span := range v.Ledger[j.Name].Spans {
			if at.Before(span.First) || at.After(span.Last) {
				continue
			}
			if n++; span.Decision != Ran {
				s.Missed++
			}
		}
		if s.Decided += min(n, 1); n > 1 {
			s.Twice++
		}
	}
	runs := map[time.Time]int{}
	for _, r := range v.Runs {
		if r.Job != j.Name {
			continue
		}
		if at := r.Nominal.UTC(); r.Phase != Phase(Missed) && r.Phase != Phase(Skipped) {
			if runs[at]++; runs[at] == 2 {
				s.Twice++
			}
		}
	}
}

func (s *Summary) run(r Run, broken bool) {
	s.Runs++
	if r.Phase == PhaseSucceeded {
		s.Succeeded++
	}
	if !broken {
		s.Whole++
	}
	for _, a := range r.Attempts {
		s.Attempts++
		s.ByOutcome[a.Outcome]++
		s.LogBytes += int64(a.Log.Bytes)
	}
	s.SlowestDecision = max(s.SlowestDecision, r.Created.Sub(r.Nominal))
	if len(r.Attempts) > 0 && !r.Attempts[0].Started.IsZero() {
		if late := r.Attempts[0].Started.Sub(r.Nominal); late > s.SlowestStart {
			s.SlowestStart, s.SlowestRun = late, r.ID
		}
	}
}

// Table returns the summary for people, one subject a line.
func (s Summary) Table() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(subject, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%s\t%s\n", subject, fmt.Sprintf(format, args...)) // to memory
	}
	line("occurrences", "%d expected, %d decided, %d missed, %d twice", s.Expected, s.Decided, s.Missed, s.Twice)
	line("runs", "%d, of which %d succeeded", s.Runs, s.Succeeded)
	line("attempts", "%d%s", s.Attempts, s.outcomes())
	line("side effects", "%d begun, %d ended", s.Begun, s.Ended)
	line("logs", "%d of %d runs whole at each of %d primaries; %d bytes", s.Whole, s.Runs, s.Primaries, s.LogBytes)
	for _, role := range []Role{Leader, Follower, Worker, Runner} {
		if f := s.Faults[role]; f != nil {
			line("faults, "+string(role), "%d killed, %d halted, %d cut off", f[Kill], f[Halt], f[Cut])
		}
	}
	if s.FaultsFailed > 0 {
		line("faults, failed", "%d", s.FaultsFailed)
	}
	line("slowest", "decided %v late, started %v late%s", s.SlowestDecision.Round(time.Millisecond), s.SlowestStart.Round(time.Millisecond), s.slowest())
	_ = w.Flush() // to memory
	return b.String()
}

func (s Summary) slowest() string {
	if s.SlowestRun == "" {
		return ""
	}
	return " (run " + s.SlowestRun + ")"
}

func (s Summary) outcomes() string {
	var b strings.Builder
	for _, o := range []Outcome{Succeeded, Failed, Interrupted, Lost, NotStarted, Refused, TimedOut, Cancelled, Unfinished} {
		if n := s.ByOutcome[o]; n > 0 {
			fmt.Fprintf(&b, ", %d %s", n, o)
		}
	}
	return b.String()
}
