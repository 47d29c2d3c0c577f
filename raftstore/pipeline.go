package raftstore

import (
	"sync"

	"github.com/hashicorp/raft"
)

// transport is Raft's own, with pipelines that wait for nobody.
type transport struct{ *raft.NetworkTransport }

// AppendEntriesPipeline implements [raft.Transport].
func (t transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := t.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	return newPipeline(p), nil
}

// pipeline keeps the answers of another primary until somebody takes them. A leader that
// hears of a newer term takes no more of them, and Raft's own pipeline lets it send no more
// then, for ever: Raft would neither stop to send heartbeats, as if it led, nor could it be
// shut down.
type pipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
	over    chan struct{} // closed by Close
	once    sync.Once
}

func newPipeline(of raft.AppendPipeline) *pipeline {
	p := &pipeline{AppendPipeline: of, answers: make(chan raft.AppendFuture), over: make(chan struct{})}
	go p.keep()
	return p
}

// keep takes the answers, and hands them on in their order, until Close. There are never
// many: who takes none any more soon sends none.
func (p *pipeline) keep() {
	var kept []raft.AppendFuture
	for {
		var next raft.AppendFuture
		var taker chan<- raft.AppendFuture // nil: there is nothing to take
		if len(kept) > 0 {
			next, taker = kept[0], p.answers
		}
		select {
		case f := <-p.AppendPipeline.Consumer():
			kept = append(kept, f)
		case taker <- next:
			kept = kept[1:]
		case <-p.over:
			return
		}
	}
}

// Consumer implements [raft.AppendPipeline].
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close implements [raft.AppendPipeline].
func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.over) })
	return p.AppendPipeline.Close()
}
