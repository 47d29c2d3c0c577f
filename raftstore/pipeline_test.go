package raftstore

import (
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

// A leader is told of a newer term while it goes on sending, and takes no answers after
// that. It has to come to its end all the same: what it sends waits for nobody, and who
// does take the answers finds them in their order.
func TestPipelineWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{layers: map[string]*pipeLayer{}}
		here, there := newStreams(p.listen("a"), quiet()), newStreams(p.listen("b"), quiet())
		over := make(chan struct{})
		go func() {
			for term := uint64(9); ; term++ {
				select {
				case rpc := <-there.Consumer():
					rpc.Respond(&raft.AppendEntriesResponse{Term: term}, nil)
				case <-over:
					return
				}
			}
		}()
		line, err := here.AppendEntriesPipeline("b", "b")
		if err != nil {
			t.Fatal(err)
		}
		const sent = 3 * streamInFlight
		for range sent {
			if _, err := line.AppendEntries(&raft.AppendEntriesRequest{Term: 1}, new(raft.AppendEntriesResponse)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range sent - 1 { // the last one is left
			if a := <-line.Consumer(); a.Response().Term != uint64(9+i) {
				t.Errorf("answer %d is of term %d", i, a.Response().Term)
			}
		}
		for range 2 {
			if err := line.Close(); err != nil {
				t.Error(err)
			}
		}
		close(over)
		for _, end := range []raft.Transport{here, there} {
			if err := closeTransport(end); err != nil {
				t.Error(err)
			}
		}
	})
}
