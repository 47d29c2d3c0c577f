package state

import "strings"

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
	if len(left) <= s.most/4 { // so that it costs less than to forget the others did
		s.moveTogether()
	}
	s.runs = make(map[RunID]*Run, len(left))
	for _, b := range left {
		s.runs[b.run.ID] = b.run
	}
}

// moveTogether puts copies in the place of all runs, page by page. Memory is given back to
// the system by pages, and while there were many runs each page came to have some that
// are left: those keep the room of all. So do tracks, each of which takes another place
// whenever something is decided; where there are more of them than there were runs, they
// are not worth it. Who was handed a run or a track keeps what he has.
func (s *State) moveTogether() {
	m := mover{texts: map[string]string{}}
	for i, b := range s.born {
		s.born[i].run = m.run(b.run)
	}
	if n := s.numTracks(); n <= s.most {
		s.moveTracks(&m)
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

func (s *State) moveTracks(m *mover) {
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

// mover copies runs and tracks, with the texts that they share with no job.
type mover struct {
	runs     pages[Run]
	attempts pages[Attempt]
	tracks   pages[Track]
	texts    map[string]string
}

func (m *mover) run(r *Run) *Run {
	c := &m.runs.take(1)[0]
	*c = *r
	c.Trigger, c.Reason, c.CancelNote = m.text(r.Trigger), m.text(r.Reason), m.text(r.CancelNote)
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

// page is how many runs, attempts or tracks are beside each other: some eight kilobytes of
// them, all of which stay while one does.
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
