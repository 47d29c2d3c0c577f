package state

import (
	"maps"
	"strings"
)

// tighten has the runs that are left take no more room than they need, after many were
// forgotten: a list and a map that were large stay so.
func (s *State) tighten() {
	left := make([]birth, 0, len(s.born)-s.pruned)
	for _, b := range s.born {
		if b.run != nil {
			left = append(left, b)
		}
	}
	s.born, s.pruned = left, 0
	if len(left) <= s.most/4 { // then it costs less than to forget the others did
		s.moveTogether()
	}
	s.runs = make(map[RunID]*Run, len(left))
	for _, b := range left {
		s.runs[b.run.ID] = b.run
	}
}

// moveTogether puts copies in the place of all runs, page by page. Memory is given back to
// the system by pages, and while there were many runs each page came to have some that
// are left: those keep the room of all. So do jobs that were defined meanwhile, and tracks,
// each of which takes another place whenever something is decided; of these there may be a
// million, and it would take too long. Who was handed something keeps what he has.
func (s *State) moveTogether() {
	m := mover{texts: map[string]string{}, definitions: map[*Definition]*Definition{}}
	if len(s.jobs)+s.numTracks() <= s.most/2 {
		s.moveJobs(&m)
	}
	for i, b := range s.born {
		s.born[i].run = m.run(b.run)
	}
	s.most = len(s.born)
}

func (s *State) numTracks() int {
	n := len(s.tracks)
	for _, p := range s.past {
		n += len(p)
	}
	return n
}

// moveJobs moves jobs, and what is kept of each beside its runs.
func (s *State) moveJobs(m *mover) {
	for k, j := range s.jobs {
		s.jobs[k] = m.job(j)
	}
	for uid, a := range s.active {
		s.active[uid] = m.activity(a)
	}
	for k, t := range s.tracks {
		s.tracks[k] = m.track(t)
	}
	for uid, p := range s.past {
		moved := make([]*Track, len(p))
		for i, t := range p {
			moved[i] = m.track(t)
		}
		s.past[uid] = moved
	}
}

// mover makes copies that are beside each other, with those texts that are of runs and not of jobs.
type mover struct {
	jobs        pages[Job]
	defined     pages[Definition]
	definitions map[*Definition]*Definition // by what they are a copy of
	activities  pages[activity]
	runs        pages[Run]
	attempts    pages[Attempt]
	tracks      pages[Track]
	texts       map[string]string
}

func (m *mover) job(j *Job) *Job {
	c, d := &m.jobs.take(1)[0], &m.defined.take(1)[0]
	*c, *d = *j, *j.Definition
	c.Definition, m.definitions[j.Definition] = d, d
	return c
}

func (m *mover) activity(a *activity) *activity {
	c := &m.activities.take(1)[0]
	*c = *a
	c.runs = make(map[RunID]struct{}, len(a.runs))
	maps.Copy(c.runs, a.runs)
	return c
}

func (m *mover) run(r *Run) *Run {
	c := &m.runs.take(1)[0]
	*c = *r
	c.Trigger, c.Reason, c.CancelNote = m.text(r.Trigger), m.text(r.Reason), m.text(r.CancelNote)
	if d := m.definitions[r.Definition]; d != nil {
		c.Definition = d // as its job has it
	}
	if len(r.Attempts) > 0 {
		c.Attempts = m.attempts.take(len(r.Attempts))
	}
	for i, a := range r.Attempts {
		a.Worker, a.WorkerName = WorkerID(m.text(string(a.Worker))), m.text(a.WorkerName)
		a.Signal, a.Reason = m.text(a.Signal), m.text(a.Reason)
		c.Attempts[i] = a
	}
	return c
}

// track leaves the closed spans where they are: they may be many.
func (m *mover) track(t *Track) *Track {
	c := &m.tracks.take(1)[0]
	*c = *t
	c.Open.Reason = m.text(t.Open.Reason)
	return c
}

// text returns a copy of s, the same for all that are equal.
func (m *mover) text(s string) string {
	if s == "" { // as most are
		return ""
	}
	c, is := m.texts[s]
	if !is {
		c = strings.Clone(s)
		m.texts[c] = c
	}
	return c
}

// pages are room for values beside each other.
type pages[T any] struct{ room []T }

// page is how many are beside each other, all of which stay while one does: of runs it is
// eight kilobytes.
const page = 26

// take returns room for n values, which has an end.
func (p *pages[T]) take(n int) []T {
	if n > len(p.room) {
		p.room = make([]T, max(n, page))
	}
	taken := p.room[:n:n]
	p.room = p.room[n:]
	return taken
}
