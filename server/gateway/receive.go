package gateway

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/server/peer"
	"github.com/schedd/schedd/server/runlog"
)

// Limits of what workers say in a session.
const (
	maxAttempts = 1000    // in one Inventory
	maxOffset   = 1 << 50 // of output: no disk holds more
)

// handle sorts a message, and returns why the session is over, or nil. It must
// not block.
func (n *session) handle(m *agentv1.AgentMessage) *ending {
	switch b := m.GetBody().(type) {
	case *agentv1.AgentMessage_Ping:
		return n.takePing(m)
	case *agentv1.AgentMessage_Inventory, *agentv1.AgentMessage_Started, *agentv1.AgentMessage_Result:
		if err := checkReport(m); err != nil {
			return n.violation(codes.InvalidArgument, err)
		}
		n.report(m)
	case *agentv1.AgentMessage_LogAppend:
		return n.takeLog(b.LogAppend)
	case *agentv1.AgentMessage_Goodbye:
		return silent(codes.OK, "goodbye: %.200q", b.Goodbye.GetReason())
	case *agentv1.AgentMessage_Hello, *agentv1.AgentMessage_AuthProof:
		return n.violation(codes.InvalidArgument, fmt.Errorf("%T in a session that is open", b))
	case *agentv1.AgentMessage_Pong:
	case nil:
		// A kind of message that this version does not know: the worker is newer
		// and within the revision agreed on, so it can do without an answer.
	}
	return nil
}

// report hands a message on to the leader.
func (n *session) report(m *agentv1.AgentMessage) {
	n.tell(func(l peer.Leader) { l.Report(n.Worker, n.Epoch, m) })
}

// takePing answers a ping. One that asks for leases is the leader's to answer, too:
// that this gateway is there says nothing about whether it is.
func (n *session) takePing(m *agentv1.AgentMessage) *ending {
	ping := m.GetPing()
	if asks := len(ping.GetFences()); asks > wire.MaxLeases {
		return n.violation(codes.InvalidArgument, fmt.Errorf("a ping that asks for %d leases, want at most %d", asks, wire.MaxLeases))
	}
	n.put(urgent, &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Pong{Pong: &agentv1.Pong{
		Seq: ping.GetSeq(), NextPing: durationpb.New(nextPing(time.Since(n.server.born), rand.Float64())),
	}}})
	if len(ping.GetFences()) > 0 {
		n.report(m)
	}
	return nil
}

func (n *session) violation(code codes.Code, err error) *ending {
	n.server.counts.violations.Add(1)
	return violation(code, "%v", err)
}

// checkReport returns why a report can't be one, or nil. Whether it is true and
// still of interest is for the leader to say.
func checkReport(m *agentv1.AgentMessage) error {
	var keys []*agentv1.AttemptKey
	switch b := m.GetBody().(type) {
	case *agentv1.AgentMessage_Inventory:
		if size := len(b.Inventory.GetAttempts()); size > maxAttempts {
			return fmt.Errorf("an inventory of %d attempts in one message, want at most %d", size, maxAttempts)
		}
		for _, a := range b.Inventory.GetAttempts() {
			keys = append(keys, a.GetKey())
		}
	case *agentv1.AgentMessage_Started:
		keys = append(keys, b.Started.GetKey())
	case *agentv1.AgentMessage_Result:
		keys = append(keys, b.Result.GetKey())
	}
	for _, k := range keys {
		if _, err := keyOf(k); err != nil {
			return fmt.Errorf("%T: %w", m.GetBody(), err)
		}
	}
	return nil
}

// keyOf returns the name of an attempt and of its log, or why it is none.
func keyOf(k *agentv1.AttemptKey) (runlog.Key, error) {
	key := runlog.Key{Run: k.GetRunId(), Attempt: k.GetAttempt(), Fence: k.GetFence()}
	if key.Attempt == 0 {
		return key, errors.New("attempt 0, want 1 or more")
	}
	return key, key.Check()
}

// takeLog queues output for the disk.
func (n *session) takeLog(m *agentv1.LogAppend) *ending {
	key, err := keyOf(m.GetKey())
	if err != nil {
		return n.violation(codes.InvalidArgument, fmt.Errorf("output: %w", err))
	}
	if m.GetOffset() < 0 || m.GetOffset() > maxOffset {
		return n.violation(codes.InvalidArgument, fmt.Errorf("output at offset %d, want 0 to %d", m.GetOffset(), int64(maxOffset)))
	}
	if size := len(m.GetData()); size > wire.MaxLogChunk {
		return n.violation(codes.InvalidArgument, fmt.Errorf("a chunk of %d bytes of output, want at most %d", size, wire.MaxLogChunk))
	}
	err = n.intake.put(key, chunk{
		offset:  m.GetOffset(),
		data:    m.GetData(),
		crc:     m.GetCrc32C(),
		damaged: len(m.GetData()) < leastBulk && runlog.Checksum(m.GetData()) != m.GetCrc32C(),
	})
	if err != nil {
		return n.violation(codes.ResourceExhausted, err)
	}
	if !n.writes {
		n.writes = true
		n.server.tasks.Go(n.writeLogs)
	}
	return nil
}
