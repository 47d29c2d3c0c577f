package history

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"time"
)

// Gap is a time of which the history may lack runs that ended in it, both ends
// included. A zero First means from the beginning.
type Gap struct {
	First, Last time.Time
	// Lost tells that no primary has what is missing.
	Lost bool
}

func (g Gap) equal(o Gap) bool {
	return g.First.Equal(o.First) && g.Last.Equal(o.Last) && g.Lost == o.Lost
}

// String says in words when the runs ended.
func (g Gap) String() string {
	first, last := g.First.Format(time.RFC3339), g.Last.Format(time.RFC3339)
	switch {
	case g.First.IsZero():
		return "until " + last
	case first == last:
		return "at " + last
	}
	return "from " + first + " to " + last
}

// anyLost tells whether one of the gaps can't be filled.
func anyLost(gaps []Gap) bool { return slices.ContainsFunc(gaps, func(g Gap) bool { return g.Lost }) }

// overlap returns what of the gap lies within [first, last].
func (g Gap) overlap(first, last time.Time) (Gap, bool) {
	if g.First.Before(first) {
		g.First = first
	}
	if g.Last.After(last) {
		g.Last = last
	}
	return g, !g.Last.Before(g.First)
}

// joined returns gaps in their order, those of a kind that touch as one.
func joined(gaps []Gap) []Gap {
	gaps = slices.Clone(gaps)
	slices.SortFunc(gaps, func(a, b Gap) int { return cmp.Or(a.First.Compare(b.First), a.Last.Compare(b.Last)) })
	var out []Gap
	for _, lost := range []bool{false, true} {
		begin := len(out)
		for _, g := range gaps {
			switch last := len(out) - 1; {
			case g.Lost != lost:
			case last >= begin && !g.First.After(out[last].Last):
				if g.Last.After(out[last].Last) {
					out[last].Last = g.Last
				}
			default:
				out = append(out, g)
			}
		}
	}
	return out
}

// within returns what of gaps lies within [first, last], whatever their kind, as
// ones that are still to be filled.
func within(gaps []Gap, first, last time.Time) []Gap {
	var out []Gap
	for _, g := range gaps {
		if o, ok := g.overlap(first, last); ok {
			o.Lost = false
			out = append(out, o)
		}
	}
	return joined(out)
}

// swapped returns gaps with others in the place of one, and whether that one was
// there.
func swapped(gaps []Gap, old Gap, with []Gap) ([]Gap, bool) {
	i := slices.IndexFunc(gaps, old.equal)
	if i < 0 {
		return gaps, false
	}
	return joined(slices.Replace(slices.Clone(gaps), i, i+1, with...)), true
}

// retire forgets of gaps that nobody can fill once what ended in them would be too old
// to be kept, at now.
func (s *Store) retire(ctx context.Context, now time.Time) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.turn }()
	all := s.Gaps()
	gaps := slices.DeleteFunc(slices.Clone(all), func(g Gap) bool { return g.Lost && g.Last.Before(now.Add(-s.Keep.Age)) })
	if len(gaps) == len(all) {
		return nil
	}
	err := s.update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		w := newWriter(ctx, tx)
		defer w.close()
		w.setGaps(gaps)
		return w.err
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gaps = gaps
	return nil
}
