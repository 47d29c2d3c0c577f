package raftstore

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// A snapshot outside of a primary's directory is a file of three parts:
//
//   - a line of JSON, so that "head -1" tells what it is;
//   - the snapshot as it is in the directory, of the size that the line tells;
//   - SHA-256 of all before it, 32 bytes.
const (
	// savedFormat is the one that this version writes, and the only one that it
	// reads.
	savedFormat = "schedd-snapshot-1"

	// maxSavedHeader is the longest first line that is believed, in bytes. A group
	// of hundreds fits.
	maxSavedHeader = 64 << 10

	// MaxSnapshot is the largest state that [Store.RestoreSnapshot] takes, in bytes as
	// it is saved: some millions of runs. While it is restored each primary needs
	// room on disk for it twice, and holds it in memory beside the state that it has.
	MaxSnapshot = 2 << 30
)

// Why a saved snapshot is refused.
var (
	// ErrDamaged is returned for what is not whole, or never was a snapshot.
	ErrDamaged = errDamaged
	// ErrNewer is returned for what a newer version wrote, and this one can't read.
	ErrNewer = errNewer
	// ErrSnapshotTooLarge is returned for one that is larger than [MaxSnapshot].
	ErrSnapshotTooLarge = errors.New("snapshot is too large to be restored")
)

// savedHeader is the first line.
type savedHeader struct {
	Format    string        `json:"format"`
	ClusterID string        `json:"cluster_id"`
	Index     uint64        `json:"index"`
	Term      uint64        `json:"term"`
	Size      int64         `json:"size"`
	Taken     time.Time     `json:"taken"`
	Servers   []savedServer `json:"servers"`
}

type savedServer struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Voter   bool   `json:"voter"`
}

// SnapshotInfo says what a saved snapshot is of.
type SnapshotInfo struct {
	ClusterID string
	Index     uint64    // of the last entry that the state had seen
	Term      uint64    // in which it was taken
	Size      int64     // of the state, in bytes
	Taken     time.Time // by the clock of the primary that it was taken on
	Jobs      int
	Runs      int
	Workers   int
	Servers   []Server // the group of then; restoring it leaves a group as it is
}

// SaveSnapshot writes the state, as it is here, to w, for [Store.RestoreSnapshot].
// Any primary can; what one that lags behind has not yet applied is not in it. The
// state goes on changing meanwhile, and what is written is of one moment.
func (s *Store) SaveSnapshot(ctx context.Context, w io.Writer) error {
	if err := s.Err(); err != nil {
		return fmt.Errorf("saving a snapshot: %w: %w", ErrStopped, err)
	}
	var n *state.Snapshot
	s.View(func(st *state.State) { n = st.Snapshot() })
	h := savedHeader{
		Format: savedFormat, ClusterID: n.ClusterID, Index: n.Index, Term: s.raft.CurrentTerm(), Taken: s.clock().UTC(),
	}
	for _, v := range s.servers() {
		h.Servers = append(h.Servers, savedServer(v))
	}
	if err := writeSaved(writerOf(ctx, w), h, n); err != nil {
		return fmt.Errorf("saving a snapshot: %w", err)
	}
	return nil
}

// writeSaved writes n twice, first to nowhere: that tells its size, which comes
// before it, and holds neither the bytes in memory nor needs a file.
func writeSaved(w io.Writer, h savedHeader, n *state.Snapshot) (err error) {
	if h.Size, err = writeSnapshot(io.Discard, n); err != nil {
		return err
	}
	line, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encoding its first line: %w", err)
	}
	if len(line) >= maxSavedHeader {
		return fmt.Errorf("its first line has %d bytes, of %d allowed", len(line), maxSavedHeader)
	}
	sum := sha256.New()
	all := io.MultiWriter(w, sum)
	if _, err := all.Write(append(line, '\n')); err != nil {
		return err
	}
	if _, err := writeSnapshot(all, n); err != nil {
		return err
	}
	_, err = w.Write(sum.Sum(nil))
	return err
}

// InspectSnapshot reads what [Store.SaveSnapshot] wrote, checks that it is whole and
// that a state can be made of it, and tells what it is of. It needs no store.
func InspectSnapshot(r io.Reader) (SnapshotInfo, error) {
	info, _, err := readSaved(r, math.MaxInt64)
	if err != nil {
		return SnapshotInfo{}, fmt.Errorf("reading a saved snapshot: %w", err)
	}
	return info, nil
}

// readSaved reads what writeSaved wrote, and checks all of it. Of a state of more
// than most bytes it reads no more than the first line.
func readSaved(r io.Reader, most int64) (SnapshotInfo, *state.Snapshot, error) {
	sum := sha256.New()
	// What is read ahead is not hashed, so this is not around the reader that hashes.
	ahead := bufio.NewReaderSize(r, maxSavedHeader)
	all := io.TeeReader(ahead, sum)
	h, err := readSavedHeader(ahead)
	if err != nil {
		return SnapshotInfo{}, nil, err
	}
	if h.Size > most {
		return SnapshotInfo{}, nil, fmt.Errorf("%w: it has %d bytes, of %d that are taken: save another when fewer runs are kept", ErrSnapshotTooLarge, h.Size, most)
	}
	_, _ = sum.Write(h.line) // never fails
	content := &io.LimitedReader{R: all, N: h.Size}
	n, err := readSnapshot(content)
	if err != nil {
		return SnapshotInfo{}, nil, err
	}
	var want [sha256.Size]byte
	if _, err := io.ReadFull(ahead, want[:]); err != nil {
		return SnapshotInfo{}, nil, fmt.Errorf("%w: it ends in its checksum: %w", errDamaged, noEOF(err))
	}
	if !bytes.Equal(sum.Sum(nil), want[:]) {
		return SnapshotInfo{}, nil, fmt.Errorf("%w: its checksum is another one", errDamaged)
	}
	switch _, err := ahead.ReadByte(); {
	case err == nil:
		return SnapshotInfo{}, nil, fmt.Errorf("%w: something comes after its end", errDamaged)
	case !errors.Is(err, io.EOF):
		return SnapshotInfo{}, nil, fmt.Errorf("reading on to its end: %w", err)
	}
	if n.Index != h.Index || n.ClusterID != h.ClusterID {
		return SnapshotInfo{}, nil, fmt.Errorf("%w: its first line says cluster %q at index %d, and it holds cluster %q at index %d",
			errDamaged, h.ClusterID, h.Index, n.ClusterID, n.Index)
	}
	return h.info(n), n, nil
}

func (h *savedHeader) info(n *state.Snapshot) SnapshotInfo {
	info := SnapshotInfo{
		ClusterID: h.ClusterID, Index: h.Index, Term: h.Term, Size: h.Size, Taken: h.Taken,
		Jobs: len(n.Jobs), Runs: len(n.Runs), Workers: len(n.Workers),
	}
	for _, v := range h.Servers {
		info.Servers = append(info.Servers, Server(v))
	}
	return info
}

// savedLine is the first line as it was read.
type savedLine struct {
	savedHeader
	line []byte
}

func readSavedHeader(r *bufio.Reader) (*savedLine, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("%w, or was never one: it does not begin with a line that says what it is", errDamaged)
	case err != nil:
		return nil, fmt.Errorf("reading its first line: %w", err)
	}
	h := &savedLine{line: bytes.Clone(line)}
	if err := json.Unmarshal(line, &h.savedHeader); err != nil {
		return nil, fmt.Errorf("%w, or was never one: its first line: %w", errDamaged, err)
	}
	switch {
	case h.Format != savedFormat:
		return nil, fmt.Errorf("it has a format (%q) %w", h.Format, errNewer)
	case h.Size < 0:
		return nil, fmt.Errorf("%w: its first line says that it has %d bytes", errDamaged, h.Size)
	}
	return h, nil
}

// writerOf returns w until ctx is done.
func writerOf(ctx context.Context, w io.Writer) io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return w.Write(p)
	})
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
