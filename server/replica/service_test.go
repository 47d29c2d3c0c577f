package replica

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/server/runlog"
)

// caller returns a client of a primary, as another one has it.
func (w *world) caller(from, to string) peerv1.LogServiceClient {
	w.Helper()
	conn, err := w.nodes[from].LogConn(to)
	if err != nil {
		w.Fatalf("%v", err)
	}
	return peerv1.NewLogServiceClient(conn)
}

// What a primary must not ask for is refused, and changes nothing.
func TestRefusals(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		b, k := w.caller("a", "b"), key(1)
		w.write("a", k, 0, 100)
		synctest.Wait()
		data := output(k, 100, 200)
		good := &peerv1.AppendRequest{Key: wireKey(k), Offset: 100, Data: data, Crc32C: runlog.Checksum(data)}
		for name, c := range map[string]struct {
			spoil func(*peerv1.AppendRequest)
			want  codes.Code
		}{
			"no key":            {func(r *peerv1.AppendRequest) { r.Key = nil }, codes.InvalidArgument},
			"key is a path":     {func(r *peerv1.AppendRequest) { r.Key = &agentv1.AttemptKey{RunId: "../a"} }, codes.InvalidArgument},
			"key is too long":   {func(r *peerv1.AppendRequest) { r.Key.RunId = string(bytes.Repeat([]byte("a"), 65)) }, codes.InvalidArgument},
			"negative offset":   {func(r *peerv1.AppendRequest) { r.Offset = -1 }, codes.InvalidArgument},
			"absurd offset":     {func(r *peerv1.AppendRequest) { r.Offset = math.MaxInt64 - 10 }, codes.InvalidArgument},
			"wrong checksum":    {func(r *peerv1.AppendRequest) { r.Crc32C++ }, codes.Unavailable},
			"negatively safe":   {func(r *peerv1.AppendRequest) { r.Safe = -1 }, codes.InvalidArgument},
			"data were damaged": {func(r *peerv1.AppendRequest) { r.Data[7] ^= 1 }, codes.Unavailable},
		} {
			req := proto.CloneOf(good)
			c.spoil(req)
			if _, err := b.Append(t.Context(), req); status.Code(err) != c.want {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
		large := &peerv1.AppendRequest{Key: wireKey(k), Offset: 100, Data: make([]byte, runlog.MaxAppend+1)}
		large.Crc32C = runlog.Checksum(large.Data)
		if _, err := w.nodes["b"].Service().Append(t.Context(), large); status.Code(err) != codes.InvalidArgument {
			t.Errorf("too large: %v", err)
		}
		for name, req := range map[string]*peerv1.ReadRequest{
			"no key":          {},
			"negative offset": {Key: wireKey(k), Offset: -1},
			"negative limit":  {Key: wireKey(k), Limit: math.MinInt64},
		} {
			if _, err := read(t.Context(), b, req); status.Code(err) != codes.InvalidArgument {
				t.Errorf("read, %s: %v", name, err)
			}
		}
		for name, req := range map[string]*peerv1.AskRequest{
			"too many keys": {Keys: slices.Repeat([]*agentv1.AttemptKey{wireKey(k)}, maxKeys+1)},
			"one bad key":   {Keys: []*agentv1.AttemptKey{wireKey(k), {RunId: "A"}}},
		} {
			if _, err := b.Ask(t.Context(), req); status.Code(err) != codes.InvalidArgument {
				t.Errorf("ask, %s: %v", name, err)
			}
		}
		w.holds("b", k, 100)
	})
}

func read(ctx context.Context, c peerv1.LogServiceClient, req *peerv1.ReadRequest) ([]byte, error) {
	stream, err := c.Read(ctx, req)
	if err != nil {
		return nil, err
	}
	var all []byte
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		if len(m.GetData()) > part || runlog.Checksum(m.GetData()) != m.GetCrc32C() || m.GetOffset() != req.GetOffset()+int64(len(all)) {
			return all, status.Errorf(codes.DataLoss, "%d bytes at %d", len(m.GetData()), m.GetOffset())
		}
		all = append(all, m.GetData()...)
	}
}

// A part of a log is what is asked for, as far as it is there.
func TestReadParts(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		k := key(1)
		w.write("a", k, 0, 200_000)
		a := w.caller("b", "a")
		for _, c := range []struct{ offset, limit, from, to int64 }{
			{0, 0, 0, 200_000},
			{0, math.MaxInt64, 0, 200_000},
			{0, 1, 0, 1},
			{100, 70_000, 100, 70_100},
			{199_999, 10, 199_999, 200_000},
			{200_000, 10, 0, 0},
			{math.MaxInt64, 10, 0, 0},
		} {
			got, err := read(t.Context(), a, &peerv1.ReadRequest{Key: wireKey(k), Offset: c.offset, Limit: c.limit})
			if err != nil || !bytes.Equal(got, output(k, c.from, c.to)) {
				t.Errorf("%d bytes at %d: %d bytes, %v", c.limit, c.offset, len(got), err)
			}
		}
		if got, err := read(t.Context(), a, &peerv1.ReadRequest{Key: wireKey(key(2))}); err != nil || len(got) != 0 {
			t.Errorf("of a log that is not there: %d bytes, %v", len(got), err)
		}
	})
}

// sink takes what Read sends.
type sink struct {
	grpc.ServerStreamingServer[peerv1.ReadResponse]
	size int64
}

func (s *sink) Send(m *peerv1.ReadResponse) error {
	s.size += int64(len(m.GetData()))
	return nil
}

// Whatever another primary sends, it is answered or refused, and a log stays
// what its attempt printed.
func FuzzService(f *testing.F) {
	f.Add("run-1", uint32(1), int64(100), []byte("text"), uint32(0), int64(0), int64(0), true)
	f.Add("run-1", uint32(1), int64(-1), []byte{}, uint32(0), int64(-1), int64(-1), false)
	f.Add("../x", uint32(0), int64(math.MaxInt64), []byte("x"), uint32(7), int64(math.MaxInt64), int64(math.MaxInt64), true)
	w := newWorld(f, f.TempDir(), 1)
	f.Cleanup(w.close)
	n, before := w.nodes["a"], output(key(1), 0, 100)
	if _, err := n.disk.Append(key(1), 0, before, runlog.Checksum(before)); err != nil {
		f.Fatal(err)
	}
	v := n.Service()
	f.Fuzz(func(t *testing.T, run string, attempt uint32, offset int64, data []byte, crc uint32, safe, limit int64, sound bool) {
		w.try = t
		if sound {
			crc = runlog.Checksum(data)
		}
		k := &agentv1.AttemptKey{RunId: run, Attempt: attempt}
		resp, err := v.Append(t.Context(), &peerv1.AppendRequest{Key: k, Offset: offset, Data: data, Crc32C: crc, Safe: safe})
		if err == nil && (resp.GetKnown() < resp.GetDurable() || resp.GetDurable() < 0 || offset < 0 || safe < 0 || crc != runlog.Checksum(data)) {
			t.Fatalf("append: %v", resp)
		}
		if _, err := v.Ask(t.Context(), &peerv1.AskRequest{Keys: []*agentv1.AttemptKey{k}}); err != nil && status.Code(err) != codes.InvalidArgument {
			t.Fatalf("ask: %v", err)
		}
		var out sink
		err = v.Read(&peerv1.ReadRequest{Key: k, Offset: offset, Limit: limit}, &out)
		if err != nil && status.Code(err) != codes.InvalidArgument || limit > 0 && out.size > limit {
			t.Fatalf("read: %d bytes, %v", out.size, err)
		}
		if got := w.content("a", key(1)); !bytes.HasPrefix(got, before) {
			t.Fatalf("what was there has changed")
		}
	})
}

// A log is worked on by one at a time, and not forgotten when it is added
// meanwhile.
func TestQueue(t *testing.T) {
	q := queue{state: map[runlog.Key]turn{}}
	for _, i := range []int{1, 2, 1} {
		q.add(key(i))
	}
	take := func(want int) {
		t.Helper()
		if k, ok := q.take(); !ok || k != key(want) {
			t.Fatalf("%v, want %v", k, key(want))
		}
	}
	done := func(i int, want bool) {
		t.Helper()
		if added := q.done(key(i)); added != want {
			t.Fatalf("%v was added meanwhile: %v", key(i), added)
		}
	}
	take(1)
	q.add(key(1)) // while it is worked on
	take(2)
	if k, ok := q.take(); ok {
		t.Fatalf("%v twice at a time", k)
	}
	done(1, true)
	done(2, false)
	for i := range 3 {
		q.add(key(i))
	}
	take(0)
	q.clear()
	if k, ok := q.take(); ok {
		t.Fatalf("%v is left", k)
	}
	q.add(key(0))
	done(0, true)
	if len(q.state) != 0 {
		t.Fatalf("%v is left", q.state)
	}
}
