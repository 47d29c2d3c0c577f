package verdict

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Promise is what was broken.
type Promise string

// All promises that are looked at.
const (
	DecidedOnce  Promise = "every occurrence is decided exactly once"
	NothingMiss  Promise = "no occurrence is missed"
	OneRun       Promise = "an occurrence that runs is one run"
	OneSuccess   Promise = "a run succeeds exactly once, or its attempts say why not"
	StartedOnce  Promise = "an attempt is started at most once"
	NoGhosts     Promise = "nothing is started that is no attempt"
	FencesGrow   Promise = "fences grow, and none is given twice"
	RunsSurvive  Promise = "runs survive what is no fault of theirs"
	OutputWhole  Promise = "output is whole"
	ItEnds       Promise = "what is started ends"
	NoCrash      Promise = "no process ends by itself"
	WrittenWhole Promise = "what processes write down can be read"
)

// Violation is a promise that was broken, with the evidence.
type Violation struct {
	Promise Promise
	Server  string // the address of the primary that tells of it; empty: none does
	Job     string
	Run     string // its id; empty when it is about none
	Attempt int    // 0 when it is about none
	Text    string // what was seen, in a sentence
}

// Judgement is what a record shows.
type Judgement struct {
	// Violations, by promise, job and run.
	Violations []Violation
	// Doubts are what keeps the record from showing what it should, each in a
	// sentence.
	Doubts []string
	// Unlooked are promises that the record can say nothing about, since nobody was
	// asked to look. That is no doubt, and must not be taken for a promise that was kept.
	Unlooked []Promise
	Summary  Summary
}

// Held reports whether all promises that were looked at were seen to be kept.
func (j Judgement) Held() bool { return len(j.Violations) == 0 && len(j.Doubts) == 0 }

// Judge says what a record shows.
func Judge(rec Record) Judgement {
	j := &judge{rec: rec, told: map[attemptKey][]Effect{}, seen: map[Violation]bool{}, neverStarted: map[string]int{}}
	for _, e := range rec.Effects {
		k := attemptKey{e.Run, e.Attempt}
		j.told[k] = append(j.told[k], e)
	}
	for _, text := range rec.Unreadable {
		j.broken(Violation{Promise: WrittenWhole, Text: text})
	}
	for _, text := range rec.Crashes {
		j.broken(Violation{Promise: NoCrash, Text: text})
	}
	j.doubts = slices.Clone(rec.Unseen)
	if len(rec.Views) == 0 {
		j.doubt("no primary could be asked what it decided")
	}
	for _, v := range rec.Views {
		j.view(v)
	}
	j.out.Summary = summarize(rec)
	if k := j.out.Summary.LeaderKills; k < rec.LeaderKills {
		j.doubt("the leader was killed %d times, and should be %d times at least: try it for longer, or on a machine that does less", k, rec.LeaderKills)
	}
	j.harmless()
	j.out.Doubts, j.out.Unlooked = j.doubts, unlooked(rec)
	slices.SortStableFunc(j.out.Violations, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Promise, b.Promise), cmp.Compare(a.Job, b.Job), cmp.Compare(a.Run, b.Run), cmp.Compare(a.Attempt, b.Attempt))
	})
	return j.out
}

// harmless has a doubt when somebody was to be harmed, and nobody was: then it was a
// day like any other, and proves nothing.
func (j *judge) harmless() {
	if j.rec.Victims == 0 || len(j.out.Summary.Faults) > 0 {
		return
	}
	why := "the cluster was never well enough for it"
	if len(j.rec.Faults) > 0 {
		why = "the last one failed: " + j.rec.Faults[len(j.rec.Faults)-1].Failed
	}
	j.doubt("no fault was carried out, of %d that were tried on %d processes: %s", len(j.rec.Faults), j.rec.Victims, why)
}

// unlooked returns the promises that a record can't say anything about.
func unlooked(rec Record) (all []Promise) {
	if !rec.Told {
		all = append(all, StartedOnce, NoGhosts, WrittenWhole)
	}
	if !rec.Closed {
		all = append(all, RunsSurvive, NoCrash)
	}
	return all
}

// attemptKey names an attempt.
type attemptKey struct {
	run    string
	number int
}

// judge is a judgement that is being made.
type judge struct {
	rec    Record
	told   map[attemptKey][]Effect
	seen   map[Violation]bool // without the server
	doubts []string
	// neverStarted counts the runs of a view that no worker would start, by the reason.
	neverStarted map[string]int
	out          Judgement
}

// broken adds a violation, once, whoever tells of it.
func (j *judge) broken(v Violation) {
	same := v
	same.Server = ""
	if !j.seen[same] {
		j.seen[same] = true
		j.out.Violations = append(j.out.Violations, v)
	}
}

func (j *judge) doubt(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(j.doubts, text) {
		j.doubts = append(j.doubts, text)
	}
}

// view judges what one primary tells.
func (j *judge) view(v View) {
	runs := map[string]map[time.Time][]Run{}
	for _, r := range v.Runs {
		if runs[r.Job] == nil {
			runs[r.Job] = map[time.Time][]Run{}
		}
		at := r.Nominal.UTC()
		runs[r.Job][at] = append(runs[r.Job][at], r)
	}
	for _, job := range j.rec.Jobs {
		ran := j.ledger(v, job)
		j.oneRunEach(v, job, ran, runs[job.Name])
		for _, r := range v.Runs {
			if r.Job == job.Name {
				j.run(v, job, r)
			}
		}
	}
	j.unread(v)
	j.untold(v)
	j.unwilling(v)
	j.ghosts(v)
	j.fences(v)
}

// ledger compares what was decided with what was due, and returns the instants
// that were to run.
func (j *judge) ledger(v View, job Job) (ran []time.Time) {
	broken := func(p Promise, format string, args ...any) {
		j.broken(Violation{Promise: p, Server: v.Server, Job: job.Name, Text: fmt.Sprintf(format, args...)})
	}
	ledger := v.Ledger[job.Name]
	for _, text := range ledger.Problems {
		broken(DecidedOnce, "the primary says: %s", text)
	}
	due := job.Due()
	decided := make([][]Span, len(due))
	for _, span := range ledger.Spans {
		n := int64(0)
		for i, at := range due {
			if !at.Before(span.First) && !at.After(span.Last) {
				decided[i] = append(decided[i], span)
				n++
			}
		}
		if n != span.Count {
			broken(DecidedOnce, "the ledger has %d occurrences from %s to %s, and %d are due", span.Count, clock(span.First), clock(span.Last), n)
		}
	}
	for i, at := range due {
		switch spans := decided[i]; {
		case len(spans) == 0:
			broken(DecidedOnce, "nothing was decided about %s", clock(at))
		case len(spans) > 1:
			broken(DecidedOnce, "%d decisions were made about %s", len(spans), clock(at))
		case spans[0].Decision == Ran:
			ran = append(ran, at)
		default:
			broken(NothingMiss, "%s was %s: %s", clock(at), spans[0].Decision, spans[0].Reason)
		}
	}
	return ran
}

// oneRunEach compares the runs of a job with the instants that were to run.
func (j *judge) oneRunEach(v View, job Job, ran []time.Time, runs map[time.Time][]Run) {
	left := maps.Clone(runs)
	for _, at := range ran {
		if n := len(left[at]); n != 1 {
			j.broken(Violation{Promise: OneRun, Server: v.Server, Job: job.Name, Text: fmt.Sprintf("%d runs are there for %s, want one: %s", n, clock(at), ids(left[at]))})
		}
		delete(left, at)
	}
	for at, others := range left {
		for _, r := range others {
			if string(r.Phase) == string(Missed) || string(r.Phase) == string(Skipped) {
				continue // it stands for what was told of already
			}
			j.broken(Violation{Promise: OneRun, Server: v.Server, Job: job.Name, Run: r.ID, Text: fmt.Sprintf("a run is there for %s, and none was decided", clock(at))})
		}
	}
}

func ids(runs []Run) string {
	var list []string
	for _, r := range runs {
		list = append(list, r.ID)
	}
	return strings.Join(list, ", ")
}

// clock says when, as the API does.
func clock(at time.Time) string { return at.UTC().Format(time.RFC3339Nano) }
