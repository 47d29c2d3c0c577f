package group

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
)

// stay keeps the address of this primary right on the record of the group that it is
// in, and finds the others when they have moved. It returns when ctx is done, or with
// [errNamesake].
func (m *Member) stay(ctx context.Context) error {
	removed := false
	for rest := askWithin; m.pause(ctx, rest); {
		rest = lookEvery
		if m.Removed() {
			if !removed {
				m.Log.Warn("this primary was removed from the group: stop it; to come back it begins with an empty data directory")
			}
			removed = true
			continue
		}
		seeking, err := m.seek(ctx)
		if err == nil {
			err = m.move(ctx)
		}
		if err != nil {
			return err
		}
		if seeking {
			rest = askEvery
		}
	}
	return nil
}

// Removed tells whether this primary was in a group and is no more. While a leader
// tells it what is agreed it may only not have come to where it was taken in.
func (m *Member) Removed() bool {
	leader, _ := m.Store.Leader()
	there, _ := m.placed()
	return leader == "" && !there && m.Store.Formed()
}

// placed tells whether this primary is in the group, and whether at its address, as
// far as it knows. One that has no port for others is nowhere else.
func (m *Member) placed() (there, placed bool) {
	address := m.recorded(m.Self.ID)
	return address != "", address == m.Self.Address || m.Self.Address == ""
}

// recorded returns where the group has the primary of that id, as far as this one
// knows; "": nowhere.
func (m *Member) recorded(id string) string {
	for _, v := range m.Store.Status().Servers {
		if v.ID == id {
			return v.Address
		}
	}
	return ""
}

// seek asks the primaries of this one's own list who they are, while it knows of no
// leader, and for as long as some are not where the group has them: when all have
// moved, nobody can lead before they find each other so. It reports whether to go on
// soon, and returns [errNamesake] and no other error.
func (m *Member) seek(ctx context.Context) (again bool, err error) {
	leader, _ := m.Store.Leader()
	if leader != "" && len(m.moved) == 0 {
		m.setTrouble(nil)
		return false, nil
	}
	others, err := m.askAll(ctx)
	if errors.Is(err, errNamesake) {
		return false, err
	}
	m.redirect(moved(m.Self, m.Store.Status().Servers, others))
	if leader != "" {
		err = nil
	}
	m.setTrouble(err)
	return leader == "" || len(m.moved) > 0, nil
}

// redirect has Raft look for those that have moved where they are now.
func (m *Member) redirect(to map[string]string) {
	if maps.Equal(to, m.moved) {
		return
	}
	for was, is := range to {
		if m.moved[was] != is {
			m.Log.Info("a primary of the group has moved, and is looked for where it is now", "was", was, "is", is)
		}
	}
	m.moved = to
	m.Redirect(maps.Clone(to))
}

// move tells the leader where this primary is now, if that is not on record. It
// returns [errNamesake] and no other error.
func (m *Member) move(ctx context.Context) error {
	there, placed := m.placed()
	if !there || placed {
		return nil
	}
	err := m.join(ctx, m.addresses(), false)
	switch {
	case err == nil && m.noted: // Raft has yet to tell this primary
	case err == nil:
		m.noted = true
		m.Log.Info("the group has this primary's new address", "address", m.Self.Address)
	case errors.Is(err, errNamesake):
		return err
	case ctx.Err() == nil:
		m.Log.Warn("the group does not have this primary's address yet; trying again", "address", m.Self.Address, "err", err)
	}
	return nil
}

// addresses returns where other primaries may be, the likeliest first: the leader, those
// that this one was told of, and those of the group.
func (m *Member) addresses() []string {
	var list []string
	if id, address := m.Store.Leader(); id != "" {
		list = append(list, address)
	}
	list = append(list, m.Others...)
	for _, v := range m.Store.Status().Servers {
		if v.ID != m.Self.ID && !slices.Contains(list, v.Address) {
			list = append(list, v.Address)
		}
	}
	return list
}

// join asks the first of the addresses that answers to have this primary in the
// group, at its address. The error is [errNamesake] when its id is another one's.
func (m *Member) join(ctx context.Context, addresses []string, empty bool) error {
	req := &peerv1.JoinRequest{PrimaryId: m.Self.ID, ClusterAddress: m.Self.Address, Empty: empty, Instance: m.instance}
	if m.Store.Leads() {
		_, err := m.take(ctx, req)
		return err
	}
	var errs []error
	for _, address := range addresses {
		err := m.joinAt(ctx, address, req)
		if err == nil || errors.Is(err, errNamesake) {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (m *Member) joinAt(ctx context.Context, address string, req *peerv1.JoinRequest) error {
	ctx, cancel := context.WithTimeout(ctx, 2*askWithin)
	defer cancel()
	conn, err := m.Conn(address)
	if err == nil {
		_, err = peerv1.NewGroupServiceClient(conn).Join(ctx, req)
	}
	if status.Code(err) == codes.AlreadyExists {
		return fmt.Errorf("%w: %s", errNamesake, status.Convert(err).Message())
	}
	if err != nil {
		return fmt.Errorf("join the group at %s: %w", address, err)
	}
	return nil
}
