package peer

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
)

// attach puts a session in a message.
func attach(s Session) *peerv1.LinkRequest {
	return &peerv1.LinkRequest{Body: &peerv1.LinkRequest_Attach{Attach: &peerv1.Attach{
		WorkerId: s.Worker, Epoch: s.Epoch, Hello: s.Hello,
		ObservedAddress: s.ObservedAddress, ConnectedTime: timestamppb.New(s.Connected), Direct: s.Direct,
	}}}
}

// sessionOf takes a session out of a message of that gateway.
func sessionOf(gateway string, a *peerv1.Attach) Session {
	return Session{
		Worker: a.GetWorkerId(), Epoch: a.GetEpoch(), Hello: a.GetHello(), Gateway: gateway,
		ObservedAddress: a.GetObservedAddress(), Connected: a.GetConnectedTime().AsTime(), Direct: a.GetDirect(),
	}
}

func detach(worker string, epoch uint64) *peerv1.LinkRequest {
	return &peerv1.LinkRequest{Body: &peerv1.LinkRequest_Detach{Detach: &peerv1.Detach{WorkerId: worker, Epoch: epoch}}}
}

func report(worker string, epoch uint64, m *agentv1.AgentMessage) *peerv1.LinkRequest {
	return &peerv1.LinkRequest{Body: &peerv1.LinkRequest_Report{Report: &peerv1.Report{WorkerId: worker, Epoch: epoch, Message: m}}}
}

func deliver(worker string, epoch uint64, m *agentv1.GatewayMessage) *peerv1.LinkResponse {
	return &peerv1.LinkResponse{Body: &peerv1.LinkResponse_Deliver{Deliver: &peerv1.Deliver{WorkerId: worker, Epoch: epoch, Message: m}}}
}

func supersede(worker string, epoch uint64, reason string, duplicate bool) *peerv1.LinkResponse {
	return &peerv1.LinkResponse{Body: &peerv1.LinkResponse_Supersede{Supersede: &peerv1.Supersede{
		WorkerId: worker, Epoch: epoch, Reason: reason, Duplicate: duplicate,
	}}}
}

// heard puts when workers were last heard of in a message.
func heard(seen map[string]sighting) *peerv1.LinkRequest {
	list := make([]*peerv1.Heard, 0, len(seen))
	for w, s := range seen {
		list = append(list, &peerv1.Heard{WorkerId: w, Epoch: s.epoch, Time: timestamppb.New(s.at)})
	}
	return &peerv1.LinkRequest{Body: &peerv1.LinkRequest_Seen{Seen: &peerv1.Seen{Workers: list}}}
}

// offsetOf estimates how much another clock is ahead of ours, from a question
// sent at sent and its answer, which says there, received at got: the answer was
// given half way, give or take half the round trip (Cristian's algorithm).
func offsetOf(sent, there, got time.Time) (offset, rtt time.Duration) {
	rtt = got.Sub(sent)
	return there.Sub(sent.Add(rtt / 2)), rtt
}
