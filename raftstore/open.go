package raftstore

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// aloneTimeout is how long a primary that is a group by itself waits for a leader
// before it becomes it. There is nobody else to wait for, so it is a fraction of
// what a group needs, and a restart is over that much sooner.
const aloneTimeout = 250 * time.Millisecond

// The settings of Raft that don't depend on who uses it.
const (
	logCache          = 512 // entries kept in memory for followers that lag a little
	maxAppendEntries  = 256 // entries sent at once
	keptSnapshots     = 2
	snapshotThreshold = 16384
	trailingLogs      = 32768
)

// Open starts a primary on what c.Dir holds, or on nothing. It returns when its
// latest snapshot is restored; the entries behind it are applied once the group
// has a leader. Whoever opens a store has to Close it.
func Open(c Config) (*Store, error) {
	if c.NodeID == "" || c.Log == nil || c.Dir == "" && c.Memory == nil {
		return nil, errors.New("opening a store: it needs a NodeID, a Log, and a Dir or a Memory")
	}
	d, err := openDisk(c)
	if err != nil {
		return nil, err
	}
	s := &Store{
		id: c.NodeID, log: c.Log, observer: c.Observer, disk: d, queue: newQueue(),
		stopping: make(chan struct{}), stopped: make(chan struct{}), caughtUp: make(chan struct{}),
	}
	s.fsm = newFSM(c, func(err error) { s.queue.close(fmt.Errorf("%w: %w", ErrStopped, err)) })
	if err := s.start(c); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the store in %s: %w", d.name, err), d.close())
	}
	return s, nil
}

// start starts Raft and what serves it.
func (s *Store) start(c Config) error {
	t := c.Transport
	if t == nil {
		_, t = raft.NewInmemTransport(raft.ServerAddress(cmp.Or(c.Address, c.NodeID)))
	}
	conf := c.raft()
	if err := s.bootstrap(c, conf, t); err != nil {
		return errors.Join(err, closeTransport(t))
	}
	r, err := startRaft(conf, s.fsm, s.disk, t)
	if err != nil {
		return errors.Join(err, s.fsm.restoreErr, closeTransport(t))
	}
	s.raft = r
	if err := s.Err(); err != nil { // an older snapshot was taken in place of it
		return errors.Join(err, r.Shutdown().Error())
	}
	s.fsm.follow(r.LastIndex(), s.catchUp)
	s.running.Go(s.commit)
	s.running.Go(s.watchLeader)
	return nil
}

// startRaft starts Raft, which panics when its log is not as it left it.
func startRaft(conf *raft.Config, f raft.FSM, d *disk, t raft.Transport) (r *raft.Raft, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the log is damaged: %v; restore this primary's data from another one's, or from a backup", p)
		}
	}()
	cache, err := raft.NewLogCache(logCache, d.logs)
	if err != nil {
		return nil, fmt.Errorf("making a cache: %w", err)
	}
	if r, err = raft.NewRaft(conf, f, cache, d.stable, d.snapshots, t); err != nil {
		return nil, fmt.Errorf("starting raft: %w", err)
	}
	return r, nil
}

// raft returns Raft's own settings.
func (c Config) raft() *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(c.NodeID)
	conf.Logger = newRaftLog(c.Log)
	conf.MaxAppendEntries = maxAppendEntries
	conf.ShutdownOnRemove = false
	conf.NoLegacyTelemetry = true
	conf.SnapshotThreshold = snapshotThreshold
	conf.TrailingLogs = trailingLogs
	if c.SnapshotThreshold != 0 {
		conf.SnapshotThreshold = c.SnapshotThreshold
	}
	if c.SnapshotInterval != 0 {
		conf.SnapshotInterval = c.SnapshotInterval
	}
	if c.TrailingLogs != 0 {
		conf.TrailingLogs = c.TrailingLogs
	}
	t := c.HeartbeatTimeout
	if t == 0 && c.Transport == nil {
		t = aloneTimeout
	}
	if t != 0 {
		conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = t, t, t/2
	}
	return conf
}

// bootstrap forms a group, unless this primary is or was in one.
func (s *Store) bootstrap(c Config, conf *raft.Config, t raft.Transport) error {
	if c.Join {
		return nil
	}
	servers := c.Bootstrap
	if servers == nil {
		servers = []Server{{ID: c.NodeID, Address: string(t.LocalAddr()), Voter: true}}
	}
	var group raft.Configuration
	for _, v := range servers {
		w := raft.Server{ID: raft.ServerID(v.ID), Address: raft.ServerAddress(v.Address), Suffrage: raft.Nonvoter}
		if v.Voter {
			w.Suffrage = raft.Voter
		}
		group.Servers = append(group.Servers, w)
	}
	err := raft.BootstrapCluster(conf, s.disk.logs, s.disk.stable, s.disk.snapshots, t, group)
	if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("forming a group of %d: %w", len(servers), err)
	}
	return nil
}

func closeTransport(t raft.Transport) error {
	if c, ok := t.(raft.WithClose); ok {
		return c.Close()
	}
	return nil
}

// watchLeader tells the operator who leads, one line for each change.
func (s *Store) watchLeader() {
	news := make(chan raft.Observation, 16)
	o := raft.NewObserver(news, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	s.raft.RegisterObserver(o)
	defer s.raft.DeregisterObserver(o)
	for told := ""; ; {
		// The latest is what counts: the channel may have dropped some.
		_, id := s.raft.LeaderWithID()
		if leader := string(id); leader != "" && leader != told {
			told = leader
			s.log.Info("new leader", "leader", leader, "term", s.raft.CurrentTerm())
		}
		select {
		case <-s.stopping:
			return
		case <-news:
		}
	}
}
