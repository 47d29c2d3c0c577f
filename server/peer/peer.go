// Package peer is the link between the gateways, which hold the workers'
// streams, and the leader, which decides what runs on them: the PeerLink.
//
// Each primary keeps one link to whoever leads, its own included: the [Uplink]
// is the gateway's end of it, the [Hub] the leader's. A link carries soft state
// only. Whenever it is made, the gateway tells all its sessions from the
// beginning, and asks its workers what they have; so nothing that was lost with
// the link before has to be found again, and a new leader learns all in the same
// way as an old one that was cut off for a while.
//
// It decides nothing about runs, keeps nothing on disk, and carries no output of
// jobs.
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
// they put what they are told in a queue. While nobody leads, or nobody can be
// reached who does, the sessions are remembered and the reports are dropped:
// workers say them again when they are asked for their inventory.
type Leader interface {
	// Attach tells of a new session. The worker's inventory follows as reports.
	Attach(Session)

	// Detach tells that a session has ended. It says nothing about the attempts
	// behind it.
	Detach(worker string, epoch uint64)

	// Report hands on what a worker said in its session: Inventory, Started or
	// Result, or a Ping that asks for leases. The message must not be changed
	// afterwards.
	Report(worker string, epoch uint64, m *agentv1.AgentMessage)

	// Seen tells that the worker was heard of.
	Seen(worker string, epoch uint64, at time.Time)
}

// Gateway is what the leader needs of the gateways.
type Gateway interface {
	// Send puts a message (Launch, Kill, ResultAck, InventoryRequest, Lease) in the
	// session's queue, and reports whether that session is still there. It does
	// not block; whether the message arrives is known only from what the worker
	// says.
	Send(worker string, epoch uint64, m *agentv1.GatewayMessage) bool

	// Sessions returns all live sessions, in no order.
	Sessions() []Session

	// Cut ends all sessions of a worker, telling it why.
	Cut(worker, reason string, permanent bool)
}

// Local is the gateway of this primary, as its [Uplink] needs it. None of its
// methods blocks.
type Local interface {
	// Send and Cut are those of [Gateway].
	Send(worker string, epoch uint64, m *agentv1.GatewayMessage) bool
	Cut(worker, reason string, permanent bool)

	// Supersede ends a session, since the worker has a newer one on another
	// primary. duplicate tells that another agent has that one, with the same
	// key.
	Supersede(worker string, epoch uint64, reason string, duplicate bool)

	// Shed asks n workers to come back through another connection, spread over
	// a minute. Their sessions go on until then.
	Shed(n int)

	// Dial keeps a session with the workers that listen at the addresses, and
	// with no others that do.
	Dial(addresses []string)
}

// Condition is how a primary is, as it tells the leader every so often.
type Condition struct {
	// LogsMissing is of how many logs it should keep a copy and lacks something, and
	// LogsAmong are the ids, sorted, of the primaries that keep copies, by which that
	// was found out: none while it is not known.
	LogsMissing int
	LogsAmong   []string
	// Failing tells that its disk does not take the output of runs.
	Failing bool
}

// Primary is what the leader has heard of a primary over its link.
type Primary struct {
	Version      string
	Instance     string        // of its process; "" when it does not say
	Level        uint32        // of the commands that it can apply, at least 1
	LastContact  time.Time     // by the leader's clock
	AppliedIndex uint64        // the last log entry that it has applied
	Sessions     int           // of workers that it holds
	ClockOffset  time.Duration // of its clock from the leader's; half the round trip is its error
	RTT          time.Duration // of the last beat
	Condition
}
