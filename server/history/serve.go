package history

import (
	"context"
	"database/sql"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
)

const (
	// page is how many runs are read at a time for another primary, and pageBytes how
	// much of them goes into one message.
	page      = 500
	pageBytes = 512 << 10

	// comeTo bounds how long another primary waits until this one is as far as it is.
	comeTo = 20 * time.Second
)

// Service returns what other primaries ask of this one.
func (s *Store) Service() peerv1.HistoryServiceServer { return &service{s: s} }

type service struct {
	peerv1.UnimplementedHistoryServiceServer
	s *Store
}

// Ended implements [peerv1.HistoryServiceServer].
func (v *service) Ended(req *peerv1.EndedRequest, stream grpc.ServerStreamingServer[peerv1.EndedResponse]) error {
	ctx := stream.Context()
	if req.GetLast() == nil {
		return status.Error(codes.InvalidArgument, "last: is required")
	}
	first, last := timeOf(req.GetFirst()), timeOf(req.GetLast())
	wait, cancel := context.WithTimeout(ctx, comeTo)
	defer cancel()
	if err := v.s.Flush(wait, req.GetIndex()); err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	// As of now: what is filled while this goes on may come too late for it.
	missing := within(v.s.Gaps(), first, last)
	altered, err := v.s.send(ctx, first, last, missing, stream.Send)
	if err != nil {
		if ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
		return status.Error(codes.Unavailable, err.Error())
	}
	return stream.Send(&peerv1.EndedResponse{End: &peerv1.HistoryEnd{Missing: showGaps(joined(append(missing, altered...)))}})
}

func showGaps(gaps []Gap) (spans []*peerv1.TimeSpan) {
	for _, g := range gaps {
		spans = append(spans, &peerv1.TimeSpan{First: stampOf(g.First), Last: stampOf(g.Last)})
	}
	return spans
}

// send sends the runs that ended within a time, and returns when those ended that were
// changed on disk and are of no use to anybody. What is missing beside those is told
// with the first of them.
func (s *Store) send(ctx context.Context, first, last time.Time, missing []Gap, send func(*peerv1.EndedResponse) error) (altered []Gap, err error) {
	missing = slices.Clip(missing) // it is the caller's, too
	finished, serial := nanos(first), int64(-1)
	for more := true; more; {
		var records [][]byte
		n := 0
		err := s.read(ctx, func(db *sql.DB) error {
			return each(ctx, db, func(rows *sql.Rows) error {
				var r row
				if err := rows.Scan(&r.serial, &r.finished, &r.record); err != nil {
					return err
				}
				n, finished, serial = n+1, r.finished, r.serial
				if _, err := r.run(); err != nil {
					s.suspect(err)
					gone := Gap{First: instant(finished), Last: instant(finished)}
					altered, missing = append(altered, gone), append(missing, gone)
					return nil
				}
				records = append(records, r.record)
				return nil
			}, "SELECT "+rowColumns+" FROM runs INDEXED BY by_finished WHERE (finished, serial) > (?, ?) AND finished <= ? ORDER BY finished, serial LIMIT ?",
				finished, serial, nanos(last), page)
		})
		if err != nil {
			return altered, err
		}
		more = n == page
		for len(records) > 0 {
			n, size := 0, 0
			for n < len(records) && (n == 0 || size+len(records[n]) <= pageBytes) {
				size += len(records[n])
				n++
			}
			m := &peerv1.EndedResponse{Runs: records[:n], Missing: showGaps(missing)}
			missing = nil
			if err := send(m); err != nil {
				return altered, err
			}
			records = records[n:]
		}
	}
	return altered, nil
}

// stampOf returns an instant for the wire; nil for none.
func stampOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}
