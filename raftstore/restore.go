package raftstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"google.golang.org/protobuf/proto"

	logv1 "github.com/schedd/schedd/proto/schedd/log/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// ErrRestoring is returned when another snapshot is being restored. Nothing was
// changed; try again when that has come to its end.
var ErrRestoring = errors.New("another snapshot is being restored at the moment")

// RestoreSnapshot puts the state that [Store.SaveSnapshot] wrote in the place of
// what is there, on all primaries at the same point of the log. The group stays as
// it is. What r holds is checked wholly before anything changes, and a damaged or
// truncated one is refused, as is one larger than [MaxSnapshot], once its first line
// is read. It waits in a file until it is checked. Nothing is proposed meanwhile: it
// waits, and comes to the restored state. One is restored at a time: while another
// one is on its way the error is [ErrRestoring].
//
// The state comes back as it was, but for three things that never go back: its
// index, its time, and the numbers that fences are taken from. So no fence is given
// out twice, however old the snapshot is.
//
// It goes through the log, in many entries, of which only the last one changes
// anything. Raft has a way to restore, too: it puts the snapshot in place on the
// leader first, and one that is killed or replaced before it has told the others
// goes on with a state that nobody agreed on.
//
// Only the leader can: the others return [ErrNotLeader], as does one that is
// replaced before it has come to the end. With [ErrUnknown], look whether it was
// restored. With any other error it was not.
func (s *Store) RestoreSnapshot(ctx context.Context, r io.Reader) error {
	if !s.Leads() {
		return fmt.Errorf("restoring a snapshot: %w", ErrNotLeader)
	}
	select {
	case s.restoring <- struct{}{}:
		defer func() { <-s.restoring }()
	default:
		return fmt.Errorf("restoring a snapshot: %w", ErrRestoring)
	}
	info, err := s.restore(ctx, r)
	if err != nil {
		return fmt.Errorf("restoring a snapshot: %w", err)
	}
	s.log.Info("snapshot restored", "cluster", info.ClusterID, "taken", info.Taken, "jobs", info.Jobs, "runs", info.Runs, "workers", info.Workers)
	return nil
}

func (s *Store) restore(ctx context.Context, r io.Reader) (info SnapshotInfo, err error) {
	file, err := s.disk.scratch()
	if err != nil {
		return info, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if info, _, err = readSaved(io.TeeReader(r, file), s.maxSnapshot); err != nil {
		return info, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return info, fmt.Errorf("reading it again: %w", err)
	}
	if !s.enter() { // not before: r may come slowly
		return info, ErrStopped
	}
	defer s.leave()
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return info, ctx.Err()
	}
	defer func() { <-s.turn }()
	if err := s.admit(Level); err != nil { // it may hold whatever this version writes
		return info, err
	}
	if err := s.proposeParts(ctx, file); err != nil {
		_ = s.mark() // any other entry lets all forget the parts that they have
		return info, err
	}
	return info, nil
}

// proposeParts puts a saved snapshot in the log. The caller has the turn.
func (s *Store) proposeParts(ctx context.Context, file io.Reader) error {
	return eachPart(file, func(p *logv1.Restore, last bool) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := encodePart(s.clock(), p)
		if err != nil {
			return err
		}
		future, told := s.put(data)
		switch err := ours(told); {
		case err == nil:
		case errors.Is(err, ErrUnknown) && !last: // without the last it is nothing
			return fmt.Errorf("%w: %w", ErrNotLeader, told)
		case errors.Is(err, ErrNotLeader), errors.Is(err, ErrStopped), errors.Is(err, ErrUnknown), !last:
			return err
		default:
			return fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		results, err := future.Response().(response).get()
		if err != nil {
			return err
		}
		return results[0].Err
	})
}

// eachPart calls f with the parts of a saved snapshot, each of about as much as an
// entry may hold.
func eachPart(file io.Reader, f func(p *logv1.Restore, last bool) error) error {
	r := &snapshotReader{r: bufio.NewReaderSize(file, maxSavedHeader)}
	if _, err := readSavedHeader(r.r); err != nil {
		return err
	}
	part, size := &logv1.Restore{}, 0
	for last := false; !last; {
		record, err := r.next()
		if err != nil {
			return err
		}
		n := proto.Size(record)
		if size += n; size > batchBytes && len(part.GetRecords()) > 0 {
			if err := f(part, false); err != nil {
				return err
			}
			part, size = &logv1.Restore{First: r.records - 1}, n
		}
		part.Records = append(part.Records, record)
		last = record.GetFooter() != nil
	}
	return f(part, true)
}

// incoming is a snapshot that comes through the log.
type incoming struct{ snapshotReader }

// newIncoming returns one that has no part yet. What jobs have alike in it they share among
// themselves, and with what is known to be shared.
func newIncoming(among shared) *incoming {
	return &incoming{snapshotReader{n: &state.Snapshot{}, shared: among}}
}

// errInterrupted is told to whoever goes on with a snapshot that was forgotten.
var errInterrupted = errors.New("another primary led in between, and nothing was restored: try again")

// take adds a part, and returns the snapshot when it is whole.
func (i *incoming) take(p *logv1.Restore) (*state.Snapshot, error) {
	if p.GetFirst() != i.records {
		return nil, errInterrupted
	}
	for _, record := range p.GetRecords() {
		// Who proposed it has checked the sum, and the log has its own.
		if err := i.snapshotReader.take(record, i.records, record.GetFooter().GetCrc()); err != nil {
			return nil, err
		}
		i.records++
	}
	if !i.whole {
		return nil, nil
	}
	return i.result()
}

// scratch returns an empty file for what is written only to be read once.
func (d *disk) scratch() (*os.File, error) {
	f, err := os.CreateTemp(d.dir, scratchFile)
	if err != nil {
		return nil, fmt.Errorf("making a file for it: %w", err)
	}
	// Nobody needs its name, so it is gone however this process ends.
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("hiding the file for it: %w", err), f.Close())
	}
	return f, nil
}
