package raftstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/raft"

	"github.com/schedd/schedd/raftstore/state"
)

// RestoreSnapshot puts the state that [Store.SaveSnapshot] wrote in the place of
// what is there, on all primaries, and returns when a majority has it. The group
// stays as it is. What r holds is checked wholly before anything changes, and a
// damaged or truncated one is refused. Nothing is proposed meanwhile: it waits, and
// comes to the restored state.
//
// The state comes back as it was, but for what counts on from the greater of what
// it had and what there was here: its index, and the numbers that fences are taken
// from. So no fence is given out twice, however old the snapshot.
//
// Only the leader can: the others return [ErrNotLeader]. After any other error but
// that of a refused snapshot it may have been restored, or yet be.
func (s *Store) RestoreSnapshot(ctx context.Context, r io.Reader) error {
	if !s.Leads() {
		return fmt.Errorf("restoring a snapshot: %w", ErrNotLeader)
	}
	info, n, err := readSaved(r)
	if err != nil {
		return fmt.Errorf("restoring a snapshot, of which nothing was taken over: %w", err)
	}
	return s.ask(ctx, "restoring a snapshot", func() error {
		select {
		case s.turn <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		defer func() { <-s.turn }()
		if err := s.restore(n); err != nil {
			return err
		}
		s.log.Info("snapshot restored", "cluster", info.ClusterID, "taken", info.Taken, "jobs", info.Jobs, "runs", info.Runs, "workers", info.Workers)
		return nil
	})
}

// restore has Raft restore n. The caller has the turn.
func (s *Store) restore(n *state.Snapshot) error {
	term := s.raft.CurrentTerm()
	if err := s.barrier(); err != nil {
		return err
	}
	// All that will ever be applied before n is applied, if this primary leads on
	// without a break, since nobody else has the turn.
	s.View(func(st *state.State) { n.GoOnFrom(st) })
	file, size, err := s.disk.scratch(func(w io.Writer) (int64, error) { return writeSnapshot(w, n) })
	if err != nil {
		return err
	}
	s.fsm.mustRestore.Store(true)
	defer s.fsm.mustRestore.Store(false)
	replaced := false
	meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: n.Index, Size: size}
	err = s.raft.Restore(meta, readerFunc(func(p []byte) (int, error) {
		// Raft reads it from the goroutine in which it would learn of another leader.
		if replaced = s.raft.CurrentTerm() != term; replaced {
			return 0, errors.New("another primary led in between")
		}
		return file.Read(p)
	}), 0)
	if replaced {
		err = fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	return errors.Join(err, file.Close(), s.Err())
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// scratch calls write, and returns what was written, from its beginning, and how
// much that is. It is gone once it is closed.
func (d *disk) scratch(write func(io.Writer) (int64, error)) (r io.ReadCloser, size int64, err error) {
	if d.dir == "" {
		var b bytes.Buffer
		size, err = write(&b)
		return io.NopCloser(&b), size, err
	}
	f, err := os.CreateTemp(d.dir, scratchFile)
	if err != nil {
		return nil, 0, fmt.Errorf("making a file for it: %w", err)
	}
	// Nobody else needs its name, so it is gone however this process ends.
	err = os.Remove(f.Name())
	if err == nil {
		size, err = write(f)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("writing it to a file: %w", err), f.Close())
	}
	return f, size, nil
}
