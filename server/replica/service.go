package replica

import (
	"context"
	"errors"
	"io"
	"math"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/server/runlog"
)

// part is the most output in one message of Read, in bytes.
const part = 64 << 10

// Service returns what the other primaries call. It has to be served only to
// them: who may call it may write any log.
func (s *Store) Service() peerv1.LogServiceServer { return service{store: s} }

type service struct {
	peerv1.UnimplementedLogServiceServer
	store *Store
}

// Ask tells what this primary has.
func (v service) Ask(ctx context.Context, req *peerv1.AskRequest) (*peerv1.AskResponse, error) {
	if len(req.GetKeys()) > maxKeys {
		return nil, status.Errorf(codes.InvalidArgument, "asks about %d logs; at most %d at a time", len(req.GetKeys()), maxKeys)
	}
	resp := &peerv1.AskResponse{Logs: make([]*peerv1.LogInfo, len(req.GetKeys()))}
	for i, in := range req.GetKeys() {
		if ctx.Err() != nil {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		k, err := readKey(in)
		if err != nil {
			return nil, err
		}
		h := v.store.has(k)
		resp.Logs[i] = &peerv1.LogInfo{Known: h.known, Durable: h.durable, Length: h.length, Sealed: h.sealed}
	}
	return resp, nil
}

// has returns what there is of a log on this primary's disk.
func (s *Store) has(k runlog.Key) have {
	if n, ok := s.logs.Finished(k); ok {
		return have{known: n, durable: n, length: n, sealed: true}
	}
	info, _ := s.logs.Stat(k)
	return have{known: info.Known, durable: info.Durable, length: info.Length, sealed: info.Sealed}
}

// Append puts output in a log and syncs it. What lies beyond the end of the log
// is dropped, and the answer says so.
func (v service) Append(ctx context.Context, req *peerv1.AppendRequest) (*peerv1.AppendResponse, error) {
	k, err := readKey(req.GetKey())
	if err != nil {
		return nil, err
	}
	offset, data, s := req.GetOffset(), req.GetData(), v.store
	if req.GetSafe() < 0 || offset > math.MaxInt64-runlog.MaxAppend {
		return nil, status.Errorf(codes.InvalidArgument, "append to log %v at %d, %d bytes of which are safe", k, offset, req.GetSafe())
	}
	known, err := s.logs.Append(k, offset, data, req.GetCrc32C())
	if errors.Is(err, runlog.ErrSealed) {
		info, _ := s.logs.Stat(k)
		data = data[:min(max(0, info.Length-offset), int64(len(data)))]
		known, err = s.logs.Append(k, offset, data, runlog.Checksum(data))
	}
	if err != nil {
		return nil, refusal(err)
	}
	if _, err = s.logs.Sync(ctx, k); err != nil {
		return nil, refusal(err)
	}
	info, _ := s.logs.Stat(k)
	s.heardOf(k, info, req.GetSafe())
	return &peerv1.AppendResponse{Known: max(known, info.Known), Durable: info.Durable, Length: info.Length, Sealed: info.Sealed}, nil
}

// Read sends a part of a log, as much as there is of it.
func (v service) Read(req *peerv1.ReadRequest, stream grpc.ServerStreamingServer[peerv1.ReadResponse]) error {
	k, err := readKey(req.GetKey())
	if err != nil {
		return err
	}
	offset, left := req.GetOffset(), req.GetLimit()
	if offset < 0 || left < 0 {
		return status.Errorf(codes.InvalidArgument, "read %d bytes at %d of log %v", left, offset, k)
	}
	if left == 0 {
		left = math.MaxInt64
	}
	for left > 0 {
		data := make([]byte, min(left, part)) // not used again: who sends it may be slow
		n, err := v.store.logs.Read(k, data, offset)
		if n > 0 {
			data = data[:n]
			if err := stream.Send(&peerv1.ReadResponse{Offset: offset, Data: data, Crc32C: runlog.Checksum(data)}); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return refusal(err)
		}
		offset, left = offset+int64(n), left-int64(n)
	}
	return nil
}

// refusal tells the other primary what it may do about an error of a log: give
// up (InvalidArgument, FailedPrecondition), try the same soon (Unavailable), or
// leave this log alone for a while (Internal).
func refusal(err error) error {
	code := codes.Internal
	switch {
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, runlog.ErrInvalid):
		code = codes.InvalidArgument
	case errors.Is(err, runlog.ErrSealed):
		code = codes.FailedPrecondition
	case errors.Is(err, runlog.ErrClosed), errors.Is(err, runlog.ErrChecksum), errors.Is(err, runlog.ErrRemoved):
		code = codes.Unavailable
	}
	return status.Error(code, err.Error())
}

func wireKey(k runlog.Key) *agentv1.AttemptKey {
	return &agentv1.AttemptKey{RunId: k.Run, Attempt: k.Attempt, Fence: k.Fence}
}

func readKey(in *agentv1.AttemptKey) (runlog.Key, error) {
	k := runlog.Key{Run: in.GetRunId(), Attempt: in.GetAttempt(), Fence: in.GetFence()}
	if err := k.Check(); err != nil {
		return k, status.Error(codes.InvalidArgument, err.Error())
	}
	return k, nil
}

// told is how another primary says what it has of a log.
type told interface {
	GetKnown() int64
	GetDurable() int64
	GetLength() int64
	GetSealed() bool
}

func haveOf(t told) have {
	return have{known: max(0, t.GetKnown()), durable: t.GetDurable(), length: t.GetLength(), sealed: t.GetSealed()}
}
