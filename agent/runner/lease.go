//go:build unix

package runner

import (
	"fmt"
	"time"
)

// Uptime implements Runner, by the kernel's clock unless the options say otherwise.
func (l *Local) Uptime() (time.Duration, bool) { return l.uptime() }

// Renew implements Runner.
func (l *Local) Renew(ends map[string]time.Duration) {
	now, ok := l.uptime()
	if !ok {
		return
	}
	for id, end := range ends {
		if p := home.of(id); p != nil {
			p.renew(end, now)
		}
	}
}

// checkTime tells why an attempt must not be started at this time, or nil.
func (l *Local) checkTime(s Spec) error {
	now, ok := l.uptime()
	switch {
	case s.Deadline > 0 && now >= s.Deadline:
		return fmt.Errorf("starting attempt %q: %w, by %v", s.ID, ErrLate, now-s.Deadline)
	case s.LeaseEnd == 0:
	case !ok:
		return fmt.Errorf("starting attempt %q: %w: this system has no clock that counts a suspend", s.ID, ErrNoLeases)
	case now >= s.LeaseEnd:
		return fmt.Errorf("starting attempt %q: its lease had ended %v before", s.ID, now-s.LeaseEnd)
	}
	return nil
}

// renew moves the end of the lease to end, unless it is over at now: what was too
// late once stays so, since whoever gave it may have given the run to another.
func (p *process) renew(end, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now < p.leaseEnd && end > p.leaseEnd {
		p.leaseEnd = end
	}
}

// leaseOver reports whether the lease ended so long ago, or longer.
func (p *process) leaseOver(ago time.Duration) bool {
	p.mu.Lock()
	end := p.leaseEnd
	p.mu.Unlock()
	if end == 0 {
		return false
	}
	now, ok := p.local.uptime()
	return !ok || now-end >= ago
}
