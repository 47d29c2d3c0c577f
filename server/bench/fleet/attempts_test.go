package fleet

import (
	"fmt"
	"testing"
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

func aLaunch(run string, fence uint64) *agentv1.Launch {
	return &agentv1.Launch{Key: &agentv1.AttemptKey{RunId: run, Attempt: 1}, Fence: fence}
}

func results(messages []*agentv1.AgentMessage) (all []string) {
	for _, m := range messages {
		if r := m.GetResult(); r != nil {
			all = append(all, fmt.Sprintf("%s %d %v", r.GetKey().GetRunId(), r.GetFence(), r.GetOutcome()))
		}
	}
	return all
}

// An attempt is told until it is on record, and begins once.
func TestAttempts(t *testing.T) {
	now := time.Unix(1000, 0)
	a := attempts{}
	first, begun := a.launch(aLaunch("r", 7), now)
	if !begun || len(first) != 2 || first[0].GetStarted().GetFence() != 7 || !first[0].GetStarted().GetTime().AsTime().Equal(now) {
		t.Fatalf("launched: %v, %v", first, begun)
	}
	again, begun := a.launch(aLaunch("r", 7), now.Add(time.Second))
	if begun || len(again) != 1 || fmt.Sprint(results(again)) != "[r 7 OUTCOME_SUCCEEDED]" || !again[0].GetResult().GetStartedTime().AsTime().Equal(now) {
		t.Errorf("launched again: %v, %v", again, begun)
	}
	if _, begun := a.launch(aLaunch("r", 8), now); !begun {
		t.Error("one with another fence is another one")
	}
	if r := a.kill(&agentv1.Kill{Key: &agentv1.AttemptKey{RunId: "r", Attempt: 1}, Fence: 7}).GetResult(); r.GetOutcome() != agentv1.Outcome_OUTCOME_SUCCEEDED {
		t.Errorf("killed after its end: %v", r)
	}
	if r := a.kill(&agentv1.Kill{Key: &agentv1.AttemptKey{RunId: "x", Attempt: 1}, Fence: 9}).GetResult(); r.GetOutcome() != agentv1.Outcome_OUTCOME_NOT_STARTED {
		t.Errorf("killed before it began: %v", r)
	}
	if _, begun := a.launch(aLaunch("x", 9), now); begun {
		t.Error("what was killed before it began must never begin")
	}
	ack := &agentv1.ResultAck{Key: &agentv1.AttemptKey{RunId: "r", Attempt: 1}, Fence: 7}
	if !a.acked(ack) || a.acked(ack) {
		t.Error("a result is on record once")
	}
	if len(a) != 2 {
		t.Errorf("%d attempts are left, want 2", len(a))
	}
}

// An inventory has everything, in pages that a gateway takes.
func TestInventory(t *testing.T) {
	for _, known := range []int{0, 1, pageSize, pageSize + 1, 3 * pageSize} {
		a := attempts{}
		for i := range known {
			a.launch(aLaunch(fmt.Sprint("r-", i), uint64(i+1)), time.Unix(0, 0))
		}
		var listed, pages int
		var more bool
		messages := a.inventory()
		for _, m := range messages {
			i := m.GetInventory()
			if i == nil {
				continue
			}
			if int(i.GetPage()) != pages || len(i.GetAttempts()) > pageSize || pages > 0 && !more {
				t.Errorf("of %d: page %d has number %d and %d attempts; the one before said more: %v", known, pages, i.GetPage(), len(i.GetAttempts()), more)
			}
			listed, more = listed+len(i.GetAttempts()), i.GetMore()
			pages++
		}
		if listed != known || more || pages == 0 || len(results(messages)) != known {
			t.Errorf("of %d: %d listed on %d pages, more %v, %d results", known, listed, pages, more, len(results(messages)))
		}
	}
}
