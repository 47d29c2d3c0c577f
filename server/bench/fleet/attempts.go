package fleet

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// attempts are those of one worker that it may not forget yet. Each has ended as soon
// as it began, so what there is to tell of one is its result.
type attempts map[key]*agentv1.Result

// key names an attempt.
type key struct {
	run     string
	attempt uint32
	fence   uint64
}

func keyOf(k *agentv1.AttemptKey, fence uint64) key {
	return key{run: k.GetRunId(), attempt: k.GetAttempt(), fence: fence}
}

// launch makes an attempt, and returns what is to be told of it. One that the worker
// knows is not made again.
func (a attempts) launch(l *agentv1.Launch, now time.Time) (answer []*agentv1.AgentMessage, begun bool) {
	k := keyOf(l.GetKey(), l.GetFence())
	if r := a[k]; r != nil {
		return []*agentv1.AgentMessage{resultMessage(r)}, false
	}
	at := timestamppb.New(now)
	r := &agentv1.Result{
		Key: l.GetKey(), Fence: l.GetFence(), Outcome: agentv1.Outcome_OUTCOME_SUCCEEDED, StartedTime: at, FinishedTime: at,
	}
	a[k] = r
	started := &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Started{Started: &agentv1.Started{
		Key: l.GetKey(), Fence: l.GetFence(), Time: at, Pid: 1,
	}}}
	return []*agentv1.AgentMessage{started, resultMessage(r)}, true
}

// kill returns what is to be told of an attempt that is not wanted any more: how it
// ended, or that it never will begin.
func (a attempts) kill(m *agentv1.Kill) *agentv1.AgentMessage {
	k := keyOf(m.GetKey(), m.GetFence())
	if a[k] == nil {
		a[k] = &agentv1.Result{
			Key: m.GetKey(), Fence: m.GetFence(), Outcome: agentv1.Outcome_OUTCOME_NOT_STARTED, Reason: "it was to be ended before it began",
		}
	}
	return resultMessage(a[k])
}

// acked forgets an attempt, and reports whether it was known.
func (a attempts) acked(m *agentv1.ResultAck) bool {
	k := keyOf(m.GetKey(), m.GetFence())
	known := a[k] != nil
	delete(a, k)
	return known
}

// pageSize is how many attempts go into one message of an inventory.
const pageSize = 1000

// inventory returns all pages of the inventory, and the results that follow it.
func (a attempts) inventory() []*agentv1.AgentMessage {
	var results []*agentv1.AgentMessage
	var known []*agentv1.AttemptStatus
	for k, r := range a {
		results = append(results, resultMessage(r))
		known = append(known, &agentv1.AttemptStatus{
			Key: r.GetKey(), Fence: k.fence, Phase: agentv1.AttemptPhase_ATTEMPT_PHASE_ENDED, StartedTime: r.GetStartedTime(),
		})
	}
	var pages []*agentv1.AgentMessage
	for page := uint32(0); page == 0 || len(known) > 0; page++ {
		n := min(len(known), pageSize)
		pages = append(pages, &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Inventory{Inventory: &agentv1.Inventory{
			Attempts: known[:n], Page: page, More: n < len(known),
		}}})
		known = known[n:]
	}
	return append(pages, results...)
}

func resultMessage(r *agentv1.Result) *agentv1.AgentMessage {
	return &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Result{Result: r}}
}
