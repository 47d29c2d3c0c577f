// Package bareraft is Raft with nothing around it: one server on a disk, a state machine
// that counts bytes, and callers that apply entries. What a primary does is measured
// beside it. It is never part of one.
package bareraft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// Loop is a Raft group of one.
type Loop struct {
	raft *raft.Raft
	logs *raftboltdb.BoltStore
}

// Open starts one on an empty directory, and returns when it leads. The log is kept as
// a primary keeps it: each entry is on the disk before it is applied.
func Open(dir string) (*Loop, error) {
	logs, err := raftboltdb.New(raftboltdb.Options{
		Path:                    filepath.Join(dir, "bare.db"),
		BoltOptions:             &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
		MsgpackUseNewTimeFormat: true,
	})
	if err != nil {
		return nil, fmt.Errorf("open the log of a bare raft in %s: %w", dir, err)
	}
	l := &Loop{logs: logs}
	if err := l.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start a bare raft in %s: %w", dir, err), l.Close())
	}
	return l, nil
}

// alone is how long a group of one waits for a leader before it becomes it.
const alone = 20 * time.Millisecond

// logCache is as large as that of a primary.
const logCache = 512

func (l *Loop) start() error {
	conf := raft.DefaultConfig()
	conf.LocalID = "a"
	conf.Logger = hclog.NewNullLogger()
	conf.NoLegacyTelemetry = true
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = alone, alone, alone/2
	address, transport := raft.NewInmemTransport("a")
	snapshots := raft.NewDiscardSnapshotStore()
	group := raft.Configuration{Servers: []raft.Server{{ID: conf.LocalID, Address: address}}}
	if err := raft.BootstrapCluster(conf, l.logs, l.logs, snapshots, transport, group); err != nil {
		return err
	}
	cache, err := raft.NewLogCache(logCache, l.logs)
	if err != nil {
		return err
	}
	if l.raft, err = raft.NewRaft(conf, &counter{}, cache, l.logs, snapshots, transport); err != nil {
		return err
	}
	<-l.raft.LeaderCh()
	return nil
}

// Apply appends an entry, and returns when it is on the disk and applied.
func (l *Loop) Apply(data []byte) error { return l.raft.Apply(data, 0).Error() }

// Close stops it.
func (l *Loop) Close() error {
	var err error
	if l.raft != nil {
		err = l.raft.Shutdown().Error()
	}
	return errors.Join(err, l.logs.Close())
}

// Rate is how many entries of a size a number of callers get applied per second, each
// one after the other, for the time given. dir is empty, and holds the log.
func Rate(ctx context.Context, dir string, callers, size int, span time.Duration) (perSecond float64, err error) {
	l, err := Open(dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	var applied atomic.Int64
	faults := make([]error, callers)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range callers {
		wg.Go(func() {
			data := make([]byte, size)
			for ctx.Err() == nil {
				if faults[i] = l.Apply(data); faults[i] != nil {
					return
				}
				applied.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(applied.Load()) / time.Since(start).Seconds(), errors.Join(faults...)
}

// counter is the least that Raft asks for of a state machine.
type counter struct{ bytes int }

// Apply implements [raft.FSM].
func (c *counter) Apply(l *raft.Log) any { c.bytes += len(l.Data); return c.bytes }

// Snapshot implements [raft.FSM].
func (c *counter) Snapshot() (raft.FSMSnapshot, error) { return nil, raft.ErrNothingNewToSnapshot }

// Restore implements [raft.FSM].
func (c *counter) Restore(r io.ReadCloser) error { return r.Close() }
