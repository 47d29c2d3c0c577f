package session

import (
	"context"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// pageSize is how many attempts go into one message of an inventory.
const pageSize = 1000

// send is the only one that sends. It takes what is most urgent first: pings and
// answers to them, then what is known of attempts, then logs. It returns nil
// when ctx is done.
func (s *Session) send(ctx context.Context, attempts Attempts) error {
	for ctx.Err() == nil {
		m := s.pressing(attempts)
		if m == nil {
			m = s.wait(ctx)
		}
		if m == nil {
			continue
		}
		if err := s.stream.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// pressing returns a message of the two upper priorities, or nil.
func (s *Session) pressing(attempts Attempts) *agentv1.AgentMessage {
	if s.box.takeAsk() {
		s.pinger.hurry()
	}
	select {
	case m := <-s.urgent:
		return m
	case <-s.pinger.timer.C:
		return s.pinger.ping()
	default:
	}
	return s.report(attempts)
}

// wait returns the next message that is there without asking for it, or nil
// when there may be something to report.
func (s *Session) wait(ctx context.Context) *agentv1.AgentMessage {
	select {
	case <-ctx.Done():
		return nil
	case m := <-s.urgent:
		return m
	case <-s.pinger.timer.C:
		return s.pinger.ping()
	case <-s.box.wake:
		return nil
	case m := <-s.chunks:
		return m
	}
}

// report returns the next thing to say about attempts, or nil.
func (s *Session) report(attempts Attempts) *agentv1.AgentMessage {
	if len(s.pages) == 0 && s.box.takeInventory() {
		s.pages = s.takeStock(attempts)
	}
	if len(s.pages) > 0 {
		m := s.pages[0]
		s.pages = s.pages[1:]
		return m
	}
	for {
		k, ok := s.box.nextReport()
		if !ok {
			return nil
		}
		if m := attempts.Message(k); m != nil {
			return m
		}
	}
}

// takeStock returns an inventory in pages, and has the results that are not yet
// acknowledged follow it.
func (s *Session) takeStock(attempts Attempts) []*agentv1.AgentMessage {
	all, trouble := attempts.Inventory(), attempts.Trouble()
	for _, a := range all {
		if a.GetPhase() == agentv1.AttemptPhase_ATTEMPT_PHASE_ENDED {
			s.box.Report(keyOf(a.GetKey()))
		}
	}
	var pages []*agentv1.AgentMessage
	for {
		page := all[:min(pageSize, len(all))]
		all = all[len(page):]
		pages = append(pages, &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Inventory{
			Inventory: &agentv1.Inventory{Attempts: page, More: len(all) > 0, Page: uint32(len(pages)), Trouble: trouble},
		}})
		if len(all) == 0 {
			return pages
		}
	}
}

func keyOf(k *agentv1.AttemptKey) Key { return Key{Run: k.GetRunId(), Attempt: k.GetAttempt()} }
