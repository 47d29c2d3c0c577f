package state

import (
	"fmt"
	"maps"
	"slices"
)

// MaxTable is how many entries each of the small tables may have: primaries that
// shall never vote, and workers that primaries dial.
const MaxTable = 1000

// How long what they hold may be, in bytes: a name of the DNS, and with a port.
const (
	maxNode    = 253
	maxAddress = maxNode + len(":65535")
)

// Standbys returns the node ids of the primaries that shall never vote, in order.
func (s *State) Standbys() []string { return slices.Sorted(maps.Keys(s.standbys)) }

// Standby tells whether the primary of that node id shall never vote.
func (s *State) Standby(id string) bool {
	_, is := s.standbys[id]
	return is
}

// Directs returns the addresses, as host:port, of the workers that primaries
// dial, in order.
func (s *State) Directs() []string { return slices.Sorted(maps.Keys(s.directs)) }

func (s *State) setStandby(c SetStandby) error {
	return s.setMember(s.standbys, c.ID, c.Standby)
}

func (s *State) setDirect(c SetDirect) error {
	return s.setMember(s.directs, c.Address, !c.Remove)
}

// setMember puts a name in a table, or takes it out.
func (s *State) setMember(table map[string]struct{}, name string, in bool) error {
	_, is := table[name]
	switch {
	case is == in:
		return nil
	case !in:
		delete(table, name)
	case len(table) >= MaxTable:
		return fmt.Errorf("put %q beside %d others: %w", name, len(table), ErrFull)
	default:
		table[name] = struct{}{}
	}
	s.changes = append(s.changes, Change{Group: true})
	return nil
}

// ValidStandby tells why id can't be the node id of a primary; nil when it can.
func ValidStandby(id string) error { return checkLength("node id of a primary", id, maxNode) }

// ValidDirect tells why address can't be that of a worker; nil when it can. Only
// its length counts here: what can be dialled is for who dials.
func ValidDirect(address string) error {
	return checkLength("address of a worker", address, maxAddress)
}

func checkLength(what, text string, most int) error {
	if len(text) == 0 || len(text) > most {
		return fmt.Errorf("%s of %d bytes, of 1 to %d allowed: %w", what, len(text), most, ErrInvalid)
	}
	return nil
}
