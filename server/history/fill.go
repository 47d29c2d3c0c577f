package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/raftstore/state"
)

const (
	// askEvery is how often the others are asked again for what could not be had.
	askEvery = 30 * time.Second

	// checkEvery is how often all records are read to see whether they are as they
	// were written, and checkFirst how long after the start. It rests for checkPause
	// after each page: a million runs take some minutes, and disturb nobody.
	checkEvery = 24 * time.Hour
	checkFirst = 10 * time.Minute
	checkPause = 100 * time.Millisecond

	// sweepEvery is how often what need not be kept is removed, and sweepFirst how
	// long after the start.
	sweepEvery = time.Hour
	sweepFirst = time.Minute
)

// Peers is the group of primaries. Its methods may be called at any time, and must
// not block.
type Peers interface {
	// Others returns the node ids of the other primaries of the group, and whether
	// this one is in it.
	Others() (ids []string, in bool)
	// HistoryConn returns a connection to one of them, on which
	// [peerv1.HistoryServiceServer] is served.
	HistoryConn(id string) (grpc.ClientConnInterface, error)
}

// Tend fills gaps from other primaries, removes what need not be kept, and looks
// whether the disk has changed what is there, until ctx is done. The store has to be
// started.
func (s *Store) Tend(ctx context.Context, peers Peers) {
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { s.checkAgainAndAgain(ctx) })
	ask := time.NewTicker(askEvery)
	defer ask.Stop()
	sweep := time.NewTimer(sweepFirst)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sweep.C:
			s.sweep(ctx)
			sweep.Reset(sweepEvery)
		case <-s.holes:
			s.fillAll(ctx, peers)
		case <-ask.C:
			s.fillAll(ctx, peers)
		}
	}
}

// checkAgainAndAgain looks for what the disk has changed while other primaries have it.
func (s *Store) checkAgainAndAgain(ctx context.Context) {
	for next := checkFirst; rest(ctx, next); next = checkEvery {
		if err := s.check(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("whether the history is as it was written could not be seen to the end; it is tried again tomorrow", "err", err)
		}
	}
}

// check reads all records. What is wrong is taken out.
func (s *Store) check(ctx context.Context) error {
	last := int64(-1)
	for more := true; more; more = more && rest(ctx, checkPause) {
		more = false
		err := s.read(ctx, func(db *sql.DB) error {
			return each(ctx, db, func(rows *sql.Rows) error {
				var r row
				if err := rows.Scan(&r.serial, &r.finished, (*sql.RawBytes)(&r.record)); err != nil {
					return err
				}
				more, last = true, r.serial
				if _, err := r.run(); err != nil {
					s.suspect(err)
				}
				return nil
			}, "SELECT "+rowColumns+" FROM runs WHERE serial > ? ORDER BY serial LIMIT ?", last, page)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// rest waits, and tells whether ctx goes on.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// sweep goes by the earlier of two clocks. The state's may have been ahead once, which it
// then is for as long; this host's may be wrong while the leaders' were right.
func (s *Store) sweep(ctx context.Context) {
	now := s.Clock()
	s.view(func(st *state.State) {
		if st.Now().Before(now) {
			now = st.Now()
		}
	})
	n, err := s.Sweep(ctx, now)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		s.Log.Warn("the history could not be shortened; it is tried again in an hour", "removed", n, "err", err)
	case n > 0:
		s.Log.Info("runs have left the history", "removed", n)
	}
}

// fillAll asks the others for what this primary may lack.
func (s *Store) fillAll(ctx context.Context, peers Peers) {
	others, in := peers.Others()
	if !in {
		return
	}
	rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	for _, g := range s.Gaps() {
		if g.Lost || ctx.Err() != nil {
			continue
		}
		if err := s.fill(ctx, peers, others, g); err != nil && ctx.Err() == nil {
			s.Log.Warn("the history still lacks runs, and is given them later", "from", g.First, "to", g.Last, "err", err)
		}
		s.Filled()
	}
}

// fill asks one after the other for what ended within a gap, and for what the one
// before did not have, either. What none of them has is lost. The error says who could
// not be asked.
func (s *Store) fill(ctx context.Context, peers Peers, others []string, g Gap) error {
	left, before := []Gap{g}, s.Stats()
	var failed error
	for _, id := range others {
		var still []Gap
		for _, piece := range left {
			rest, err := s.ask(ctx, peers, id, piece)
			if errors.Is(err, errMoved) {
				signal(s.holes)
				return nil
			}
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("asking primary %s: %w", id, err))
			}
			still = append(still, rest...)
		}
		left = still
	}
	if failed != nil && len(left) > 0 {
		return failed
	}
	for _, piece := range left {
		gone := piece
		gone.Lost = true
		if err := s.replace(ctx, piece, []Gap{gone}, nil); err != nil {
			return err
		}
		s.Log.Warn("the history may lack runs that ended in this time and had left the state: no primary has more", "from", piece.First, "to", piece.Last, "others", len(others))
	}
	if len(left) == 0 {
		s.Log.Info("the history has been given what it lacked", "from", g.First, "to", g.Last, "bytes", s.Stats().Bytes-before.Bytes)
	}
	return nil
}

// ask takes over what another primary has of a gap, and returns what is left of it: what
// it has not come to first, and what that one lacks, too.
func (s *Store) ask(ctx context.Context, peers Peers, id string, g Gap) (left []Gap, err error) {
	left = []Gap{g}
	conn, err := peers.HistoryConn(id)
	if err != nil {
		return left, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	index := s.told.Index
	s.mu.Unlock()
	stream, err := peerv1.NewHistoryServiceClient(conn).Ended(ctx, &peerv1.EndedRequest{First: stampOf(g.First), Last: stampOf(g.Last), Index: index})
	if err != nil {
		return left, err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // there was no end
		}
		if err != nil {
			return left, err
		}
		if m.GetEnd() != nil {
			missing := append(spansOf(m.GetEnd().GetMissing(), left[0]), left[1:]...)
			return missing, s.replace(ctx, left[0], missing, nil)
		}
		runs, err := runsOf(m, left[0])
		if err != nil {
			return left, err
		}
		// They come by their end, so what comes later ended no earlier.
		rest := left[0]
		if end := runs[len(runs)-1].Finished; end.After(rest.First) && !end.After(rest.Last) {
			rest.First = end
		}
		// What lies in the rest is told again, at the latest with the end.
		missing := spansOf(m.GetMissing(), Gap{First: g.First, Last: rest.First.Add(-1)})
		if err := s.replace(ctx, left[0], append([]Gap{rest}, missing...), runs); err != nil {
			return left, err
		}
		left[0] = rest
		left = append(left, missing...)
	}
}

// spansOf returns what of a gap the other one may lack, too.
func spansOf(spans []*peerv1.TimeSpan, g Gap) []Gap {
	var missing []Gap
	for _, m := range spans {
		missing = append(missing, Gap{First: timeOf(m.GetFirst()), Last: timeOf(m.GetLast())})
	}
	return within(missing, g.First, g.Last)
}

// runsOf reads the runs of a message about a gap. One that is about nothing would have what
// nobody was asked for taken for lost.
func runsOf(m *peerv1.EndedResponse, g Gap) (runs []*state.Run, err error) {
	for _, record := range m.GetRuns() {
		r, err := unseal(record)
		if err != nil {
			return nil, err
		}
		if !r.Phase.Final() {
			return nil, fmt.Errorf("run %v is %v, and was said to have ended", r.ID, r.Phase)
		}
		if r.Finished.Before(g.First) || r.Finished.After(g.Last) {
			return nil, fmt.Errorf("run %v ended at %v, and was told among those that ended %v", r.ID, r.Finished, g)
		}
		g.First = r.Finished
		runs = append(runs, r)
	}
	if len(runs) == 0 {
		return nil, errors.New("it sent neither runs nor the end")
	}
	return runs, nil
}

// errMoved is returned when another gap has become one with that which is filled, so
// that it has to be begun anew.
var errMoved = errors.New("the gap is part of a larger one now")

// replace puts runs into the history, and other gaps in the place of one, in one
// transaction.
func (s *Store) replace(ctx context.Context, old Gap, with []Gap, runs []*state.Run) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.turn }()
	gaps, ok := swapped(s.Gaps(), old, with)
	if !ok {
		return errMoved
	}
	s.mu.Lock()
	begun := s.begun
	s.mu.Unlock()
	if anyLost(with) {
		s.view(func(st *state.State) { begun = max(begun, st.Serial()) })
	}
	err := s.update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		w := newWriter(ctx, tx)
		defer w.close()
		for _, r := range runs {
			w.fill(r)
		}
		w.setGaps(gaps)
		if anyLost(gaps) {
			// Else there is no row, and what an older version then loses may be any run's.
			w.exec("INSERT OR REPLACE INTO lost VALUES (1, ?)", int64(begun))
		}
		return w.err
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gaps, s.begun = gaps, begun
	return nil
}
