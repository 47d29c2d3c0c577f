package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// restEvery is how often a primary looks whether it is at rest. A minute is long enough
// that the collection which giving memory back takes, some hundred milliseconds of CPU
// for a million jobs, is nothing beside what a busy one does in that time.
const restEvery = time.Minute

// giveBack returns memory to the system when the primary is at rest. The runtime keeps
// what the heap will need until it is collected next, as much as is in use; who has made
// no use of it for a minute can do without.
func giveBack(ctx context.Context) {
	tick := time.NewTicker(restEvery)
	defer tick.Stop()
	before := readHeap()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := readHeap()
		if atRest(before, now) {
			debug.FreeOSMemory()
		}
		before = now
	}
}

// heap is how memory is used, in bytes.
type heap struct {
	allocated uint64 // since the start
	live      uint64 // what was reachable when it was collected last
	rest      uint64 // what came since then, and what is free and could be given back
}

// atRest tells whether little was allocated meanwhile, and much could be given back.
func atRest(before, now heap) bool {
	const little = 4 << 20 // what is less costs more to look for than it is worth
	some := now.live/4 + little
	return now.allocated-before.allocated < some && now.rest > some
}

// readHeap asks the runtime.
func readHeap() heap {
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(s)
	h := heap{allocated: s[0].Value.Uint64(), live: s[1].Value.Uint64()}
	objects, free := s[2].Value.Uint64(), s[3].Value.Uint64()
	h.rest = free + objects - min(objects, h.live)
	return h
}
