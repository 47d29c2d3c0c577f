package raftstore

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	logv1 "github.com/schedd/schedd/proto/schedd/log/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// Archive keeps the runs that have ended for longer than the state does. It is
// handed each of them as it is applied, in the order of the log, also when the log
// is applied again after a restart, so that no run leaves the state unseen.
//
// Ended and Restored are called while the state is held, so that a run is in the
// archive's hands before anyone can find that it is no longer in the state. They
// must return at once, and not call the store.
type Archive interface {
	// Ended hands over the runs that have ended up to a point since the last call,
	// as they were right after: one that was changed after its end comes again.
	// There may be none.
	Ended(at Point, runs []*state.Run)
	// Restored tells that another state took the place of what was there.
	Restored(r Restoration)
	// Flush returns when what was handed over up to an index is safe, or tells why
	// it is not. A snapshot of the state at that index is finished only then, as
	// what the log held before it is never applied again.
	Flush(ctx context.Context, index uint64) error
}

// Point is one in the life of the state.
type Point struct {
	Index   uint64    // of the last entry
	Now     time.Time // by the leaders' clocks; never goes back
	Cluster string    // its id; "" before it has one
}

// Restoration is a state that took the place of another.
type Restoration struct {
	At   Point
	Runs []*state.Run // all that have ended in it

	// Unseen tells that the log up to there was not applied here: more may have
	// ended, and left the state, than was ever handed over.
	Unseen bool
	// Undone, when it is not 0, tells that it is an older state, put in place by an
	// operator: what was born with a greater serial number until now never was.
	Undone uint64
}

// flushWithin is how long a snapshot waits for the archive. It is then finished
// without: the log must not grow for ever because of what can't be archived.
const flushWithin = 30 * time.Second

// point returns where the state is. The caller holds the lock.
func (f *fsm) point() Point {
	return Point{Index: f.state.Index(), Now: f.state.Now(), Cluster: f.state.ClusterID()}
}

// file hands over what has ended. The caller holds the lock.
func (f *fsm) file() {
	if ended := f.state.TakeEnded(); f.archive != nil {
		f.archive.Ended(f.point(), ended)
	}
}

// fileAll hands over all that has ended in a snapshot, which has just become the
// state. The caller holds the lock.
func (f *fsm) fileAll(n *state.Snapshot, unseen bool) {
	if f.archive == nil {
		return
	}
	r := Restoration{At: f.point(), Unseen: unseen}
	if !unseen {
		r.Undone = n.Serial
	}
	for _, run := range n.Runs {
		if run.Phase.Final() {
			r.Runs = append(r.Runs, run)
		}
	}
	f.archive.Restored(r)
}

// flush waits for the archive, for a while.
func (f *fsm) flush(index uint64) {
	if f.archive == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushWithin)
	defer cancel()
	if err := f.archive.Flush(ctx, index); err != nil {
		f.log.Warn("a snapshot is taken before all that ended is in the history", "index", index, "err", err)
	}
}

// EncodeRun returns a run that has ended in the form that snapshots hold it in.
func EncodeRun(r *state.Run) ([]byte, error) {
	var e encoder
	p := e.run(r)
	if e.err != nil {
		return nil, fmt.Errorf("encoding run %v: %w", r.ID, e.err)
	}
	b, err := marshal.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encoding run %v: %w", r.ID, err)
	}
	return b, nil
}

// DecodeRun reads what EncodeRun wrote, on this version or another: a field that it
// does not know is left out, which does no harm to a record that is only shown.
func DecodeRun(data []byte) (*state.Run, error) {
	var p logv1.Run
	if err := proto.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("decoding a run: %w", err)
	}
	var d decoder
	r := d.run(&p)
	if d.err != nil {
		return nil, fmt.Errorf("decoding run %v: it holds %w", r.ID, d.err)
	}
	return r, nil
}
