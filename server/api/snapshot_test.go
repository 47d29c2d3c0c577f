package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

// saveAll saves a snapshot through n.
func (n *node) saveAll(ctx context.Context) (all []byte, md metadata.MD, err error) {
	s, err := schedv1.NewClusterServiceClient(n.conn).SaveSnapshot(ctx, &schedv1.SaveSnapshotRequest{})
	for err == nil {
		var piece *schedv1.SaveSnapshotResponse
		if piece, err = s.Recv(); err != nil {
			break
		}
		if n := len(piece.GetData()); n == 0 || n > snapshotPiece {
			return all, nil, fmt.Errorf("a piece of %d bytes", n)
		}
		all = append(all, piece.GetData()...)
	}
	if errors.Is(err, io.EOF) {
		header, _ := s.Header()
		return all, metadata.Join(header, s.Trailer()), nil
	}
	return all, s.Trailer(), err
}

// restoreAll restores a snapshot through n, in pieces of that size.
func (n *node) restoreAll(ctx context.Context, all []byte, size int) (*schedv1.ClusterStatus, metadata.MD, error) {
	s, err := schedv1.NewClusterServiceClient(n.conn).RestoreSnapshot(ctx)
	if err != nil {
		return nil, nil, err
	}
	for len(all) > 0 {
		m := min(size, len(all))
		if s.Send(&schedv1.RestoreSnapshotRequest{Data: all[:m]}) != nil {
			break // CloseAndRecv says why
		}
		all = all[m:]
	}
	r, err := s.CloseAndRecv()
	return r.GetStatus(), s.Trailer(), err
}

func someBytes(n int) []byte {
	all := make([]byte, n)
	_, _ = rand.Read(all)
	return all
}

// A snapshot comes whole, of any size and through any primary, and it is the
// leader's.
func TestSaveSnapshot(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		for _, size := range []int{0, 1, snapshotPiece, 3*snapshotPiece + 7} {
			all := someBytes(size)
			w.a.save = func(_ context.Context, out io.Writer) error {
				for rest := all; len(rest) > 0; {
					n := min(len(rest), 100_000)
					if _, err := out.Write(rest[:n]); err != nil {
						return err
					}
					rest = rest[n:]
				}
				return nil
			}
			for _, n := range w.all() {
				got, md, err := n.saveAll(t.Context())
				w.fine(err)
				if !bytes.Equal(got, all) {
					t.Errorf("%d bytes came through %s, want %d, or they differ", len(got), n.id, size)
				}
				for _, key := range []string{"x-header", "x-trailer"} {
					if from := md.Get(key); n != w.a && (len(from) != 1 || from[0] != "a") {
						t.Errorf("of the leader's metadata came %v", md)
					}
				}
				if len(md.Get(indexKey)) == 0 {
					t.Errorf("no index is in %v", md)
				}
			}
		}
	})
}

// What goes wrong in the midst is told as the leader tells it, and nothing begins
// again: a snapshot of two moments is none.
func TestSaveSnapshotFails(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		first := someBytes(snapshotPiece)
		saves := 0
		w.a.save = func(_ context.Context, out io.Writer) error {
			saves++
			_, _ = out.Write(first)
			return status.Error(codes.DataLoss, "the disk says no")
		}
		for _, n := range w.all() {
			got, _, err := n.saveAll(t.Context())
			if status.Code(err) != codes.DataLoss || !bytes.Equal(got, first) {
				t.Errorf("through %s came %d bytes, then %v", n.id, len(got), err)
			}
		}
		w.a.save = func(ctx context.Context, out io.Writer) error {
			saves++
			_, _ = out.Write(first)
			w.lead("c")
			go w.a.kill()
			<-ctx.Done()
			return ctx.Err()
		}
		_, _, err := w.b.saveAll(t.Context())
		w.reason(err, reasonNotLeader)
		if saves != 4 {
			t.Errorf("it was saved %d times", saves)
		}
		w.a.save = func(context.Context, io.Writer) error { panic("oh") }
		w.c.save = w.a.save
		if _, _, err := w.b.saveAll(t.Context()); status.Code(err) != codes.Internal {
			t.Errorf("a panic is %v", err)
		}
	})
}

// A caller that goes away ends it on the leader; nothing is left behind, which the
// bubble holds.
func TestSaveSnapshotIsCancelled(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		var gone error
		w.a.save = func(ctx context.Context, out io.Writer) error {
			for {
				if _, err := out.Write(make([]byte, 1<<20)); err != nil {
					gone = err
					return err
				}
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		s, err := schedv1.NewClusterServiceClient(w.b.conn).SaveSnapshot(ctx, &schedv1.SaveSnapshotRequest{})
		w.fine(err)
		_, err = s.Recv()
		w.fine(err)
		synctest.Wait() // it is held up: nobody reads on
		cancel()
		synctest.Wait()
		if status.Code(gone) != codes.Canceled {
			t.Errorf("the leader ended with %v", gone)
		}
	})
}

// A snapshot arrives whole at the leader, whichever primary it was sent to, and
// what was restored is seen there.
func TestRestoreSnapshot(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		for _, size := range []int{0, 1, snapshotPiece, 3*snapshotPiece + 7} {
			for _, n := range w.all() {
				all := someBytes(size)
				var got []byte
				w.a.restore = func(_ context.Context, in io.Reader) (err error) {
					got, err = io.ReadAll(in)
					w.agree(state.InitCluster{})
					return err
				}
				n.lag(n != w.a)
				began := time.Now()
				time.AfterFunc(time.Second, func() { n.lag(false) })
				s, trailer, err := n.restoreAll(t.Context(), all, 100_000)
				w.fine(err)
				if !bytes.Equal(got, all) || s.GetLeaderId() != "a" {
					t.Errorf("%d bytes came through %s, want %d, or they differ; %v", len(got), n.id, size, s)
				}
				if is := indexOf(t, trailer); is != w.a.AppliedIndex() {
					t.Errorf("the answer is of index %d, want %d", is, w.a.AppliedIndex())
				}
				w.took(began, 0)
				says(t, n.get(t.Context(), "j"), codes.NotFound)
				if n.AppliedIndex() != w.a.AppliedIndex() {
					t.Errorf("%s answers before it has what was restored", n.id)
				}
				sleep(time.Second)
			}
		}
	})
}

// Nobody leads when it comes, or the one that is believed in does not: not a byte
// is sent until somebody does.
func TestRestoreSnapshotWaitsForALeader(t *testing.T) {
	for asked, leader := range map[string]string{"a": "c", "b": "c", "c": "c"} {
		together(t, func(t *testing.T, w *trio) {
			all := someBytes(2 * snapshotPiece)
			var got []byte
			w.node(leader).restore = func(_ context.Context, in io.Reader) (err error) {
				got, err = io.ReadAll(in)
				return err
			}
			w.lead("")
			w.leadSeenBy("", "c")
			w.mu.Lock()
			w.a.sees, w.b.sees = "a", "a" // in vain
			w.mu.Unlock()
			began := time.Now()
			time.AfterFunc(3*time.Second, func() { w.lead(leader) })
			_, _, err := w.node(asked).restoreAll(t.Context(), all, 100_000)
			w.fine(err)
			w.took(began, 3*time.Second)
			if !bytes.Equal(got, all) {
				t.Errorf("asked %s: %d bytes came, want %d", asked, len(got), len(all))
			}
		})
	}
	together(t, func(t *testing.T, w *trio) {
		w.lead("")
		began := time.Now()
		_, _, err := w.b.restoreAll(t.Context(), nil, 1)
		w.reason(err, reasonNotLeader)
		w.took(began, patience)
	})
}

// What the leader says in the midst comes through, and nothing begins again.
func TestRestoreSnapshotFails(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		restores := 0
		refuse := func(err error) func(context.Context, io.Reader) error {
			return func(_ context.Context, in io.Reader) error {
				restores++
				_, _ = io.ReadFull(in, make([]byte, 1000))
				return err
			}
		}
		big := make([]byte, 4<<20)
		for _, n := range w.all() {
			w.a.restore = refuse(fmt.Errorf("restoring a snapshot: %w, or was never one", raftstore.ErrDamaged))
			_, _, err := n.restoreAll(t.Context(), big, 100_000)
			if says := "snapshot is damaged, or was never one"; status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), says) {
				t.Errorf("through %s: %v", n.id, err)
			}
			for told, code := range map[error]codes.Code{raftstore.ErrSnapshotTooLarge: codes.ResourceExhausted, raftstore.ErrRestoring: codes.Aborted} {
				w.a.restore = refuse(fmt.Errorf("restoring a snapshot: %w", told))
				_, _, err = n.restoreAll(t.Context(), big, 100_000)
				says(t, err, code)
			}
			w.a.restore = refuse(fmt.Errorf("restoring a snapshot: %w", raftstore.ErrNotLeader))
			_, _, err = n.restoreAll(t.Context(), big, 100_000)
			w.reason(err, reasonNotLeader)
			w.a.restore = refuse(fmt.Errorf("restoring a snapshot: %w", raftstore.ErrUnknown))
			_, _, err = n.restoreAll(t.Context(), big, 100_000)
			w.reason(err, reasonUnknown)
		}
		if restores != 15 {
			t.Errorf("it was restored %d times", restores)
		}
		w.a.restore = func(_ context.Context, in io.Reader) error {
			_, _ = io.ReadFull(in, make([]byte, 1000))
			go w.a.kill()
			_, err := io.Copy(io.Discard, in)
			return err
		}
		_, _, err := w.b.restoreAll(t.Context(), big, 100_000)
		w.reason(err, reasonUnknown)
	})
}

// A caller that goes away in the midst ends it on the leader, which restores
// nothing.
func TestRestoreSnapshotIsCancelled(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		for _, n := range w.all() {
			var gone error
			w.a.restore = func(_ context.Context, in io.Reader) error {
				_, gone = io.Copy(io.Discard, in)
				return gone
			}
			ctx, cancel := context.WithCancel(t.Context())
			s, err := schedv1.NewClusterServiceClient(n.conn).RestoreSnapshot(ctx)
			w.fine(err)
			w.fine(s.Send(&schedv1.RestoreSnapshotRequest{Data: []byte("x")}))
			synctest.Wait()
			cancel()
			synctest.Wait()
			if status.Code(gone) != codes.Canceled {
				t.Errorf("through %s: the leader ended with %v", n.id, gone)
			}
		}
	})
}
