package replica

import (
	"slices"
	"time"

	"github.com/schedd/schedd/server/runlog"
)

// Missing returns of how many logs this primary should keep a copy, and lacks
// something that others have; those of which too few others say what they have
// count as well. among are the ids of the primaries that keep copies, by which that
// was found out, sorted; nil while it is not known: since those have changed, or all
// that is remembered, or one of them was away, the logs have not been looked through.
// That takes some seconds, or after a primary was away up to a minute.
// What nobody has is not missing: it is still to come from its worker, or lost.
func (s *Store) Missing() (n int, among []string) {
	s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.group.Load()
	switch {
	case g.alone:
		return 0, g.members
	case s.surveyed != s.round:
		return 0, nil
	}
	return len(s.lacking), g.members
}

// KnownChanged tells that all that is remembered may be other logs than before, as
// after a snapshot: they are compared soon.
func (s *Store) KnownChanged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stirLocked(true)
}

// stirLocked has all logs be compared anew; an urgent time does not wait for a rest.
func (s *Store) stirLocked(urgent bool) {
	s.round++
	s.urgent = s.urgent || urgent
	signal(s.news)
}

// allDue tells whether older logs are to be looked at, too: since something has changed,
// or it is long ago.
func (s *Store) allDue(now time.Time) (all bool, round uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.urgent = false
	if all = s.surveyed != s.round || now.Sub(s.walked) > allEvery; all {
		s.walked = now
	}
	return all, s.round
}

// lackNothing takes note that nothing is missing: a primary that is alone has nobody to
// ask. To look at all that is remembered would be to read all of its history.
func (s *Store) lackNothing(round uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.lacking)
	s.surveyed = round
}

// survey returns the logs that this primary should have and that are not whole on its
// disk, which count as missing until they were compared.
func (s *Store) survey(all bool, round uint64) (missing []want) {
	g := s.now()
	lacking := map[runlog.Key]int64{}
	if !all { // what was not looked at is as it was
		for _, w := range s.missing() {
			lacking[w.key] = w.length
		}
	}
	for k, length := range s.known(all) {
		switch {
		case !slices.Contains(Holders(k, g.members), g.self):
		case s.has(k).whole():
			delete(lacking, k)
		default:
			lacking[k] = length
		}
	}
	s.mu.Lock()
	s.lacking, s.surveyed = lacking, round
	s.mu.Unlock()
	return s.missing()
}

// missing returns the logs of which something is missing, as far as known.
func (s *Store) missing() (ws []want) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, length := range s.lacking {
		ws = append(ws, want{k, length})
	}
	return ws
}

// note takes note of how a log was found.
func (s *Store) note(w want, t todo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.safe {
		s.whole.Put(w.key, struct{}{})
	}
	if t.lacks {
		s.lacking[w.key] = w.length
	} else {
		delete(s.lacking, w.key)
	}
}
