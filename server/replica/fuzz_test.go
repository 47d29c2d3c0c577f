package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"log/slog"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/server/runlog"
)

// recording is what another primary answers: to a question, and when a log is read, each
// message behind its length. It is the connection to it as well, and the group.
type recording struct {
	grpc.ClientStream
	answer []byte
	rest   []byte
	read   []*peerv1.ReadResponse // what was taken from it
}

// recorded writes messages as a recording has them.
func recorded(messages ...*peerv1.ReadResponse) (b []byte) {
	for _, m := range messages {
		one := encoded(m)
		b = append(binary.AppendUvarint(b, uint64(len(one))), one...)
	}
	return b
}

func encoded(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err) // ours can be encoded
	}
	return b
}

func (r *recording) Self() string                                     { return "a" }
func (r *recording) Members() []string                                { return []string{"a", "b"} }
func (r *recording) LogConn(string) (grpc.ClientConnInterface, error) { return r, nil }

func (r *recording) Invoke(_ context.Context, _ string, _, reply any, _ ...grpc.CallOption) error {
	return proto.Unmarshal(r.answer, reply.(proto.Message)) //nolint:forcetypeassert // gRPC has no others
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
	resp := m.(*peerv1.ReadResponse) //nolint:forcetypeassert // that is what it is asked for
	if err := proto.Unmarshal(one, resp); err != nil {
		return err
	}
	r.read = append(r.read, proto.CloneOf(resp))
	return nil
}

// sound is the log that is to be made of what there was and what was read: of each message
// that is as its checksum says, and that goes on where the log ends.
func (r *recording) sound(before []byte) []byte {
	all := bytes.Clone(before)
	for _, m := range r.read {
		from, size := m.GetOffset(), int64(len(all))
		end := from + int64(len(m.GetData()))
		if runlog.Checksum(m.GetData()) == m.GetCrc32C() && from >= 0 && from <= size && end > size {
			all = append(all, m.GetData()[size-from:]...)
		}
	}
	return all
}

// Whatever another primary answers: what is here stays as it is, what is added is what was
// sent whole and in its place, and who says that all was pulled has it.
func FuzzAnswers(f *testing.F) {
	k, before := key(1), output(key(1), 0, 100)
	piece := func(from, to int64) *peerv1.ReadResponse {
		data := output(k, from, to)
		return &peerv1.ReadResponse{Offset: from, Data: data, Crc32C: runlog.Checksum(data)}
	}
	damaged := piece(100, 200)
	damaged.Crc32C++
	has := func(known, durable, length int64, isSealed bool) []byte {
		return encoded(&peerv1.AskResponse{Logs: []*peerv1.LogInfo{{Known: known, Durable: durable, Length: length, Sealed: isSealed}}})
	}
	f.Add(has(300, 300, 300, true), recorded(piece(100, 200), piece(200, 300)), int64(0))
	f.Add(has(300, 300, 0, false), recorded(piece(0, 300)), int64(0))
	f.Add(has(300, 0, 0, false), recorded(piece(100, 200), damaged), int64(0))
	f.Add(has(300, 0, 0, false), recorded(piece(150, 300)), int64(200)) // a hole, and it is sealed here
	f.Add(has(1<<62, 1<<62, -1, true), recorded(piece(100, 150), &peerv1.ReadResponse{Offset: -1}), int64(0))
	f.Add(has(-1, -1, -1, false), recorded(), int64(100))
	f.Add(encoded(&peerv1.AskResponse{}), recorded(piece(100, 200)), int64(0))
	f.Add([]byte("no answer"), []byte("no log"), int64(0))
	disk, err := runlog.Open(f.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = disk.Close() })
	f.Fuzz(func(t *testing.T, answer, messages []byte, end int64) {
		if err := disk.Remove(k); err != nil {
			t.Fatal(err)
		}
		if _, err := disk.Append(k, 0, before, runlog.Checksum(before)); err != nil {
			t.Fatal(err)
		}
		isSealed := end >= 100 && end < 1<<20
		if isSealed {
			if err := disk.Seal(k, end); err != nil {
				t.Fatal(err)
			}
		}
		b := &recording{answer: answer, rest: messages}
		s := New(Config{Logs: disk, Peers: b, Known: func(bool) iter.Seq2[runlog.Key, int64] { return func(func(runlog.Key, int64) bool) {} }, Log: slog.New(slog.DiscardHandler)})
		all, err := newLink(s, "b").ask(t.Context(), askWithin, []runlog.Key{k})
		if err != nil {
			return
		}
		if len(all) != 1 || all[0].known < 0 {
			t.Fatalf("it was asked about one log, and answers %+v", all)
		}
		e := s.use(k)
		err = s.pull(t.Context(), e, map[string]have{"b": all[0]})
		s.leave(e)
		info, _ := disk.Stat(k)
		got := make([]byte, info.Known)
		if n, err := disk.Read(k, got, 0); n != len(got) || err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("of %d bytes %d can be read: %v", len(got), n, err)
		}
		if want := b.sound(before); !bytes.HasPrefix(got, before) || !bytes.HasPrefix(want, got) {
			t.Fatalf("the log has %d bytes, of which not all are as they were sent", len(got))
		}
		goal := all[0].known
		if isSealed {
			goal = min(goal, end)
		}
		if err == nil && info.Known < goal || isSealed && info.Known > end {
			t.Fatalf("%d bytes were to be had, %d are here, sealed at %d (%v): %v", goal, info.Known, end, isSealed, err)
		}
	})
}
