// Package peer is the link between the gateways, which hold the workers'
// streams, and the leader, which decides what runs on them. It says what the
// two tell each other, and never decides anything itself.
//
// On one primary both ends are in one process and call each other directly.
package peer

import (
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// Session is one live, authenticated stream of one worker.
type Session struct {
	Worker          string         // the worker's id
	Epoch           uint64         // orders the sessions of a worker; the greatest wins
	Hello           *agentv1.Hello // what the worker says of itself; read-only
	Gateway         string         // id of the primary that holds it
	ObservedAddress string         // where the stream came from, as the gateway saw it
	Connected       time.Time      // by the gateway's clock
	Direct          bool           // the gateway dialled the worker, not the other way round
}

// Leader is what a gateway needs of the leader. None of its methods blocks:
// they put what they are told in the leader's inbox. While nobody leads, the
// inbox keeps the sessions and drops the reports: workers say them again when
// they are asked for their inventory.
type Leader interface {
	// Attach tells of a new session. The worker's inventory follows as reports.
	Attach(Session)

	// Detach tells that a session has ended. It says nothing about the attempts
	// behind it.
	Detach(worker string, epoch uint64)

	// Report hands on what a worker said in its session: Inventory, Started or
	// Result. The message must not be changed afterwards.
	Report(worker string, epoch uint64, m *agentv1.AgentMessage)

	// Seen tells that the worker was heard of.
	Seen(worker string, epoch uint64, at time.Time)
}

// Gateway is what the leader needs of the gateways.
type Gateway interface {
	// Send puts a message (Launch, Kill, ResultAck, InventoryRequest) in the
	// session's queue, and reports whether that session is still there. It does
	// not block; whether the message arrives is known only from what the worker
	// says.
	Send(worker string, epoch uint64, m *agentv1.GatewayMessage) bool

	// Sessions returns all live sessions, in no order.
	Sessions() []Session

	// Cut ends all sessions of a worker, telling it why.
	Cut(worker, reason string, permanent bool)
}
