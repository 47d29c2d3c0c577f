package raftstore

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// groupTimeout is how long a leader may be silent before the others elect another one.
// It speaks every 50 to 100 ms, beside what waits for the disk, so a slow disk is not
// silence; and while most of the others hear the leader, no one of them can depose it.
// Raft looks at it by chance, once in 0.5 to 1 s: a leader that was killed is replaced
// after 0.5 to 2 s, in half of the cases within 0.8 s.
const groupTimeout = 500 * time.Millisecond

// leaseTimeout is how long a leader goes on by itself at least, if the timeout lets it:
// with less, one that is starved of CPU for a moment would give up what nobody wants.
const leaseTimeout = 500 * time.Millisecond

// The settings of Raft that don't depend on who uses it.
const (
	logCache          = 64      // entries kept in memory for followers that lag a little
	logCacheBytes     = 1 << 20 // of these at most: under load each may have some ten KiB, or sixty
	maxAppendEntries  = 128     // entries sent at once
	keptSnapshots     = 2
	snapshotThreshold = 16384
	trailingLogs      = 32768
)

// Open starts a primary on what c.Dir holds, or on nothing. It returns when its
// latest snapshot is restored; the entries behind it are applied once the group
// has a leader. Whoever opens a store has to Close it.
func Open(c Config) (*Store, error) {
	if c.NodeID == "" || c.Log == nil || c.Dir == "" && c.Memory == nil {
		return nil, errors.Join(errors.New("opening a store: it needs a NodeID, a Log, and a Dir or a Memory"), c.closeWays())
	}
	if c.Streams != nil && c.Transport != nil {
		return nil, errors.Join(errors.New("opening a store: it has Streams and a Transport, and can use only one"), c.closeWays())
	}
	d, err := openDisk(c)
	if err != nil {
		return nil, errors.Join(err, c.closeWays())
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	s := &Store{
		id: c.NodeID, clock: c.Clock, log: c.Log, observer: c.Observer, disk: d, queue: newQueue(),
		turn: make(chan struct{}, 1), watchers: newWatchers(), restoring: make(chan struct{}, 1), level: cmp.Or(c.Level, Level), levels: c.Levels, maxSnapshot: MaxSnapshot, levelOf: levelOf,
		stopping: make(chan struct{}), down: make(chan struct{}), stopped: make(chan struct{}), caughtUp: make(chan struct{}),
	}
	s.fsm = newFSM(c, func(err error) { s.queue.close(fmt.Errorf("%w: %w", ErrStopped, err)) })
	s.fsm.onGroup = s.watchers.wake
	d.guard.onFail, d.guard.onWrite, d.guard.stopping = s.fsm.fail, s.queue.write, s.stopping
	if err := s.start(c); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the store in %s: %w", d.name, err), d.close())
	}
	return s, nil
}

// start starts Raft and what serves it.
func (s *Store) start(c Config) error {
	t := c.transport()
	conf := c.raft()
	var r *raft.Raft
	err := s.disk.guard.during(func() (err error) {
		if err := s.bootstrap(c, conf, t); err != nil {
			return err
		}
		goal, err := findGoal(s.disk)
		if err != nil {
			return err
		}
		goal.reached = s.catchUp
		s.fsm.goal = goal
		r, err = startRaft(conf, s.fsm, s.disk, t)
		return err
	})
	if r == nil {
		return errors.Join(err, s.fsm.restoreErr, closeTransport(t))
	}
	s.raft, s.transport = r, t
	if err := s.Err(); err != nil { // an older snapshot was taken in place of it
		return errors.Join(err, r.Shutdown().Error())
	}
	s.disk.guard.opened.Store(true)
	s.running.Go(s.commit)
	s.running.Go(s.watchLeader)
	if c.HeartbeatTimeout == 0 {
		s.standAtOnce()
	}
	s.running.Go(func() { s.boundLog(cmp.Or(c.MaxLog, maxLog)) })
	s.running.Go(s.dropLog)
	return nil
}

// shorter is by how much standAtOnce makes a timeout shorter.
const shorter = time.Millisecond

// standAtOnce has a primary that alone has a vote stand for election: there is no leader
// that it could hear of, and it would wait for one for up to a second. Raft looks at its
// timeout anew when that becomes shorter.
func (s *Store) standAtOnce() {
	f := s.raft.GetConfiguration()
	votes, ours := 0, false
	for _, v := range f.Configuration().Servers {
		if v.Suffrage == raft.Voter {
			votes, ours = votes+1, ours || string(v.ID) == s.id
		}
	}
	if votes != 1 || !ours {
		return
	}
	c := s.raft.ReloadableConfig()
	c.HeartbeatTimeout -= shorter
	if err := s.raft.ReloadConfig(c); err != nil {
		s.log.Warn("not standing for election at once", "err", err)
	}
}

// transport returns how this primary reaches the others.
func (c Config) transport() raft.Transport {
	switch {
	case c.Transport != nil:
		return c.Transport
	case c.Streams != nil:
		return newStreams(c.Streams, c.Log)
	}
	_, t := raft.NewInmemTransport(raft.ServerAddress(cmp.Or(c.Address, c.NodeID)))
	return t
}

// closeWays closes the ways to the others when the store can't be opened.
func (c Config) closeWays() error {
	var err error
	if c.Streams != nil {
		err = c.Streams.Close()
	}
	return errors.Join(err, closeTransport(c.Transport))
}

// startRaft starts Raft, which panics when its log is not as it left it.
func startRaft(conf *raft.Config, f raft.FSM, d *disk, t raft.Transport) (r *raft.Raft, err error) {
	if r, err = raft.NewRaft(conf, f, newRecentLogs(logCache, logCacheBytes, d.logs), d.stable, d.snapshots, t); err != nil {
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
	t := cmp.Or(c.HeartbeatTimeout, groupTimeout)
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = t+shorter, t+shorter, max(t/2, min(t, leaseTimeout))
	conf.CommitTimeout = max(conf.CommitTimeout, t/10) // no more often than it speaks anyway
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
	err := raft.BootstrapCluster(conf, s.disk.logs, s.disk.stable, s.disk.snapshots, t, toRaft(servers))
	if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("forming a group of %d: %w", len(servers), err)
	}
	return nil
}

// toRaft returns the group as Raft has it.
func toRaft(servers []Server) (c raft.Configuration) {
	for _, v := range servers {
		w := raft.Server{ID: raft.ServerID(v.ID), Address: raft.ServerAddress(v.Address), Suffrage: raft.Nonvoter}
		if v.Voter {
			w.Suffrage = raft.Voter
		}
		c.Servers = append(c.Servers, w)
	}
	return c
}

// fromRaft is the inverse of toRaft, in the order of ids.
func fromRaft(c raft.Configuration) []Server {
	servers := make([]Server, 0, len(c.Servers))
	for _, v := range c.Servers {
		servers = append(servers, Server{ID: string(v.ID), Address: string(v.Address), Voter: v.Suffrage == raft.Voter})
	}
	slices.SortFunc(servers, func(a, b Server) int { return cmp.Compare(a.ID, b.ID) })
	return servers
}

func closeTransport(t raft.Transport) error {
	if c, ok := t.(raft.WithClose); ok {
		return c.Close()
	}
	return nil
}
