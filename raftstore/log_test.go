package raftstore

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A primary is down for five minutes, and Raft says so a hundred times a second.
func TestRaftRepeatsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said strings.Builder
		l := newRaftLog(slog.New(slog.NewTextHandler(&said, nil))).Named("x").With("n", 1)
		for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			l.Error("failed to heartbeat to", "peer", "p1:7420", "backoff time", time.Since(end))
			l.Error("failed to heartbeat to", "peer", "p2:7420")
		}
		l.Error("something else")
		l.Warn("not worth telling")
		if n := strings.Count(said.String(), "\n"); n != 2*5+1 {
			t.Errorf("that makes %d lines, want one a minute for each peer, and one more:\n%s", n, said.String())
		}
	})
}
