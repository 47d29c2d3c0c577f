package plan

import "github.com/schedd/schedd/raftstore/state"

// Runs of a job that wait for others of it to end are held: they are in no line, and need
// not be looked at until there may be room. Held is, by how they are alike, those of one job.
type held map[likeness]*ranking[state.RunID, place]

// likeness is what runs of a job have in common of which the first can go if any can. A job that was defined
// anew may have some that wait for other workers, or for fewer others, than those before.
type likeness struct {
	wish
	most int // how many runs of the job may be at work with it
}

// mustWait reports whether other runs of the job have to end first.
func (p *placing) mustWait(r *state.Run) bool {
	policy := r.Definition.Policy
	return policy.Overlap != state.OverlapAllow && p.s.NumLive(r.UID)+p.begun[r.UID] >= policy.MaxConcurrent
}

// hold takes note that a run waits for others of its job.
func (p *placing) hold(r *state.Run) {
	q := p.q
	w, _ := q.wishes.Get(r.ID)
	a := likeness{w, r.Definition.Policy.MaxConcurrent}
	if q.held[r.UID] == nil {
		q.held[r.UID] = held{}
	}
	if q.held[r.UID][a] == nil {
		q.held[r.UID][a] = newLine()
	}
	q.held[r.UID][a].set(r.ID, placeOf(r))
}

// Release takes note that there may be room for n more runs of a job: as many of those
// that waited for it may go, those first that have waited longest. It is as many of those that are alike, since
// others may have no worker, or have to wait for more to end. [Queue.Place] sees to it that
// no more go than may.
func (q *Queue) Release(uid uint64, n int) {
	for _, h := range q.held[uid] {
		for range n {
			first, ok := h.first()
			if !ok {
				break
			}
			h.remove(first.key)
			q.wait(first.key, first.rank)
		}
	}
	q.tidy(uid)
}

// Refused takes note that a run was not given to whom Place has said last. It may not even
// be there: what was to make it was refused. Who was held because of it may go.
func (q *Queue) Refused(id state.RunID) {
	q.changed = true
	if uid, there := q.given[id]; there {
		delete(q.given, id)
		q.Release(uid, 1)
	}
}

// tidy drops what is empty of a job's runs that are held.
func (q *Queue) tidy(uid uint64) {
	of, there := q.held[uid]
	if !there {
		return
	}
	for a, h := range of {
		if len(h.items) == 0 {
			delete(of, a)
		}
	}
	if len(of) == 0 {
		delete(q.held, uid)
	}
}
