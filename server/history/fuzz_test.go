package history

import (
	"context"
	"encoding/binary"
	"io"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

// sealed returns the record of a run as it is in the file.
func sealed(r *state.Run) []byte {
	record, err := raftstore.EncodeRun(r)
	if err != nil {
		panic(err) // ours can be encoded
	}
	return seal(record)
}

// Whatever a record is, it is read or refused. What was read can be written again and is
// the same, and of that no changed byte goes unnoticed.
func FuzzRecord(f *testing.F) {
	for n := range 10 {
		f.Add(sealed(aRun(n)), uint(n*7), byte(1<<(n%8)))
	}
	f.Add([]byte{}, uint(0), byte(1))
	f.Add([]byte("no record at all"), uint(3), byte(0x80))
	f.Fuzz(func(t *testing.T, record []byte, at uint, flip byte) {
		r, err := unseal(record)
		if err != nil {
			return
		}
		plain, err := raftstore.EncodeRun(r)
		if err != nil {
			t.Fatalf("run %v was read, and can't be written: %v", r.ID, err)
		}
		again := seal(plain)
		is, err := unseal(again)
		if d := gocmp.Diff(r, is); d != "" || err != nil {
			t.Fatalf("it was written, and is read as another: %v\n%s", err, d)
		}
		tag := len(again) - 4 - protowire.SizeTag(sealField)
		if i := int(at % uint(len(again))); flip != 0 && (i < tag || i >= len(again)-4) {
			again[i] ^= flip
			if got, err := unseal(again); err == nil {
				t.Fatalf("byte %d of %d has changed, and it is read as %+v", i, len(again), got)
			}
		}
	})
}

// recording is what another primary says when it is asked for runs: each message
// behind its length. It is the connection to it as well.
type recording struct {
	grpc.ClientStream
	rest  []byte
	ended bool // it has said that this is all
}

// recorded writes messages as a recording has them.
func recorded(messages ...*peerv1.EndedResponse) (b []byte) {
	for _, m := range messages {
		one, err := proto.Marshal(m)
		if err != nil {
			panic(err) // ours can be encoded
		}
		b = append(binary.AppendUvarint(b, uint64(len(one))), one...)
	}
	return b
}

func (r *recording) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	return io.ErrUnexpectedEOF
}

func (r *recording) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return r, nil
}

func (r *recording) SendMsg(any) error { return nil }
func (r *recording) CloseSend() error  { return nil }

func (r *recording) RecvMsg(m any) error {
	size, n := binary.Uvarint(r.rest)
	if n <= 0 {
		return io.EOF
	}
	size = min(size, uint64(len(r.rest)-n))
	one := r.rest[n : n+int(size)]
	r.rest = r.rest[n+int(size):]
	resp := m.(*peerv1.EndedResponse) //nolint:forcetypeassert // that is what it is asked for
	err := proto.Unmarshal(one, resp)
	r.ended = err == nil && resp.GetEnd() != nil
	return err
}

// Others and HistoryConn implement [Peers].
func (r *recording) Others() ([]string, bool)                             { return []string{"b"}, true }
func (r *recording) HistoryConn(string) (grpc.ClientConnInterface, error) { return r, nil }

// Whatever another primary says of the runs that it was asked for: the history can be read
// afterwards, has only runs that ended when it was asked for, and what it was not told to
// the end it still lacks.
func FuzzEnded(f *testing.F) {
	some := func(from, to int) (records [][]byte) {
		for _, r := range numbers(from, to) {
			records = append(records, sealed(r))
		}
		return records
	}
	end := &peerv1.EndedResponse{End: &peerv1.HistoryEnd{}}
	lacks := &peerv1.EndedResponse{End: &peerv1.HistoryEnd{Missing: showGaps([]Gap{{First: at(12).Now, Last: at(14).Now}, {Last: at(500).Now}})}}
	young := aRun(15)
	young.Phase, young.Finished = state.Pending, time.Time{}
	f.Add(recorded(&peerv1.EndedResponse{Runs: some(10, 20)}, end))
	f.Add(recorded(&peerv1.EndedResponse{Runs: some(10, 15), Missing: lacks.GetEnd().GetMissing()}, &peerv1.EndedResponse{Runs: some(15, 20)}, lacks))
	f.Add(recorded(&peerv1.EndedResponse{Runs: some(10, 20)})) // cut off
	f.Add(recorded(&peerv1.EndedResponse{Runs: some(15, 20)}, &peerv1.EndedResponse{Runs: some(10, 15)}, end))
	f.Add(recorded(&peerv1.EndedResponse{Runs: some(0, 40)}, end)) // more than it was asked for
	f.Add(recorded(&peerv1.EndedResponse{Runs: [][]byte{sealed(young)}}, end))
	f.Add(recorded(&peerv1.EndedResponse{Runs: [][]byte{{1, 2, 3}}}, end))
	f.Add(recorded(&peerv1.EndedResponse{}, &peerv1.EndedResponse{}))
	s := begin(f.TempDir(), generous, stateAt(100))
	f.Cleanup(func() { _ = s.Close() })
	flush(f, s)
	f.Fuzz(func(t *testing.T, messages []byte) {
		asked := Gap{First: at(10).Now, Last: at(19).Now}
		s.lack(t, asked)
		b := &recording{rest: messages}
		left, err := s.ask(t.Context(), b, "b", asked)
		if b.ended != (err == nil) {
			t.Fatalf("it was told the end: %v, and says %v", b.ended, err)
		}
		for _, g := range left {
			if g.Lost || g.First.Before(asked.First) || g.Last.After(asked.Last) || g.Last.Before(g.First) {
				t.Fatalf("it was asked for what ended %v, and %v is left of that", asked, g)
			}
		}
		if gaps := s.Gaps(); !slices.EqualFunc(gaps, joined(left), Gap.equal) {
			t.Fatalf("it lacks %v, and %v was left", gaps, left)
		}
		if err != nil && !slices.ContainsFunc(left, func(g Gap) bool { return g.Last.Equal(asked.Last) }) {
			t.Fatalf("it was not told to the end (%v), and %v is left", err, left)
		}
		runs, err := s.List(t.Context(), Query{Limit: 1000})
		if err != nil {
			t.Fatalf("it can't be read any more: %v", err)
		}
		for _, r := range runs {
			if !r.Phase.Final() || r.Finished.Before(asked.First) || r.Finished.After(asked.Last) {
				t.Fatalf("it was given run %v, which is %v since %v", r.ID, r.Phase, r.Finished)
			}
		}
	})
}

// told is the stream on which another primary hears what it asked for.
type told struct {
	grpc.ServerStreamingServer[peerv1.EndedResponse]
	ctx      context.Context //nolint:containedctx // that is what a stream is
	messages []*peerv1.EndedResponse
}

func (s *told) Context() context.Context { return s.ctx }

func (s *told) Send(m *peerv1.EndedResponse) error {
	s.messages = append(s.messages, m)
	return nil
}

// Whatever time another primary asks for, it is told of runs that ended within that, in
// order, and to the end; or it is refused.
func FuzzEndedRequest(f *testing.F) {
	for _, req := range []*peerv1.EndedRequest{
		{},
		{First: stampOf(at(3).Now), Last: stampOf(at(7).Now)},
		{First: stampOf(at(7).Now), Last: stampOf(at(3).Now), Index: 2},
		{Last: &timestamppb.Timestamp{Seconds: 1<<63 - 1, Nanos: -1}},
		{First: &timestamppb.Timestamp{Seconds: 12899352904}, Last: &timestamppb.Timestamp{Seconds: 23636771148}},
		{First: &timestamppb.Timestamp{Seconds: -1 << 63}, Last: stampOf(at(500).Now), Index: 1 << 63},
	} {
		b, err := proto.Marshal(req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	s := begin(f.TempDir(), generous, newShared())
	f.Cleanup(func() { _ = s.Close() })
	s.Ended(at(19), numbers(0, 20))
	flush(f, s)
	f.Fuzz(func(t *testing.T, asked []byte) {
		var req peerv1.EndedRequest
		if proto.Unmarshal(asked, &req) != nil {
			return
		}
		req.Index = min(req.GetIndex(), at(19).Index) // or it waits until that has come
		stream := &told{ctx: t.Context()}
		if err := s.Service().Ended(&req, stream); err != nil {
			if code := status.Code(err); code != codes.InvalidArgument {
				t.Fatalf("%v is answered %v", &req, err)
			}
			return
		}
		if n := len(stream.messages); n == 0 || stream.messages[n-1].GetEnd() == nil {
			t.Fatalf("of %v it is not told the end: %v", &req, stream.messages)
		}
		first, last, before := timeOf(req.GetFirst()), timeOf(req.GetLast()), time.Time{}
		for _, m := range stream.messages {
			for _, record := range m.GetRuns() {
				r, err := unseal(record)
				if err != nil || r.Finished.Before(first) || r.Finished.After(last) || r.Finished.Before(before) {
					t.Fatalf("of %v it is told of run %v, which ended %v: %v", &req, r.ID, r.Finished, err)
				}
				before = r.Finished
			}
		}
	})
}

// lack has a history have nothing, and lack what ended in a time.
func (s *Store) lack(t *testing.T, g Gap) {
	t.Helper()
	for _, table := range []string{"runs", "workers", "gaps"} {
		if _, err := s.db.write.ExecContext(t.Context(), "DELETE FROM "+table); err != nil {
			t.Fatal(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gaps = []Gap{g}
}
