package gateway

import "sync/atomic"

// Stats is what a gateway counts, for the primary's metrics.
type Stats struct {
	// Sessions and Handshakes are how many there are now.
	Sessions, Handshakes int

	// All others count since the gateway was made.

	// Welcomed counts sessions begun, Rejected streams refused in their
	// handshake, by whatever reason.
	Welcomed, Rejected uint64
	// Superseded, Silent and Violations count sessions ended by a newer one of
	// the worker, by [wire.DeadAfter], and by a worker that broke the protocol.
	Superseded, Silent, Violations uint64
	// Duplicates counts sessions refused because another agent with the same
	// key is connected.
	Duplicates uint64
	// Received and Sent count messages within sessions.
	Received, Sent uint64
	// LogBytes counts bytes of output given to the run logs, LogErrors how often output could
	// not be kept.
	LogBytes, LogErrors uint64
}

type counts struct {
	welcomed, rejected, superseded, silent, violations, duplicates atomic.Uint64
	received, sent, logBytes, logErrors                            atomic.Uint64
}

// Stats returns what was counted. It is cheap.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	sessions, handshakes := len(s.live), len(s.crowd.all)
	s.mu.Unlock()
	c := &s.counts
	return Stats{
		Sessions:   sessions,
		Handshakes: handshakes,
		Welcomed:   c.welcomed.Load(),
		Rejected:   c.rejected.Load(),
		Superseded: c.superseded.Load(),
		Silent:     c.silent.Load(),
		Violations: c.violations.Load(),
		Duplicates: c.duplicates.Load(),
		Received:   c.received.Load(),
		Sent:       c.sent.Load(),
		LogBytes:   c.logBytes.Load(),
		LogErrors:  c.logErrors.Load(),
	}
}
