package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// restEvery is how often a primary looks whether it is at rest. Giving memory back takes a
// collection, some hundred milliseconds of CPU for a million jobs, but is not done again
// before there is as much to give.
const restEvery = 5 * time.Second

// giveBack returns memory to the system when the primary is at rest. The runtime keeps
// what the heap will need until it is collected next, as much as is in use; who has made
// no use of it for some time can do without.
func giveBack(ctx context.Context) {
	eachLook(ctx, func(before, now heap) {
		if atRest(before, now) {
			debug.FreeOSMemory()
		}
	})
}

// eachLook calls f again and again with the heap as it was and as it is, until ctx is done.
func eachLook(ctx context.Context, f func(before, now heap)) {
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
		f(before, now)
		before = now
	}
}

const (
	// paceEvery is how often a primary looks how fast it allocates. Who was calm and is no
	// more collects too often for as long.
	paceEvery = time.Second
	// apart is how far apart collections are meant to be, in seconds: of half a gigabyte
	// each takes some hundred milliseconds of CPU. Of more they take more, and are meant to be
	// farther apart by as much, or they would cost a primary with a million jobs more than
	// all that it does; and by as much again where that takes no more than a third of what is
	// in use, so that what a run costs does not go by how many jobs there are beside it.
	apart, ofBytes = 20, 512 << 20
	// usual is how much the heap may grow until it is collected by default, in percent of
	// what is in use.
	usual = 100
	// busy is how many bytes it may grow in any case while as much is allocated in that
	// time: a heap that is small would be collected several times a second, and each
	// collection holds up what waits for a processor.
	busy = 64 << 20
	// steep bounds all that in percent: a heap that becomes large in a moment, by a snapshot
	// that is restored, may grow by that until the next look.
	steep = 400
)

// keepPace holds the reserve of the heap to what is needed. By default it is as much as is
// in use, however little is allocated: ten thousand workers that have nothing to do would
// take twice the memory, and a primary that has few jobs and much to do would collect all
// the time. Nothing is done where the reserve was chosen by GOGC.
func keepPace(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	tick := time.NewTicker(paceEvery)
	defer tick.Stop()
	before, set, pace := readHeap(), usual, uint64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := readHeap()
		pace = max(now.allocated-before.allocated, pace/10*9)
		before = now
		if want := growth(now.used, pace); want < set*3/4 || want > set*5/4 {
			debug.SetGCPercent(want)
			set = want
		}
	}
}

// growth is how much the heap may grow until it is collected, in percent of what is in
// use, where so much is allocated each second.
func growth(used, pace uint64) int {
	const least = 32 << 20
	if used == 0 {
		return usual
	}
	near := uint64(float64(pace) * apart * large(used))
	far := uint64(float64(near) * large(used))
	reserve := max(near, min(far, used/3), used/8, least)
	most := max(used*usual/100, min(pace*apart, busy))
	return int(min(min(reserve, most)*100/used, steep))
}

// large is how many times as large as one of which a collection costs little a heap is;
// 1 of all that are smaller.
func large(heap uint64) float64 { return float64(max(heap, ofBytes)) / ofBytes }

// heap is how memory is used, in bytes.
type heap struct {
	allocated uint64 // since the start
	live      uint64 // what was reachable when it was collected last
	used      uint64 // by that, and by what it is found from
	rest      uint64 // what came since then, and what is free and could be given back
}

// atRest tells whether little was allocated meanwhile, and much could be given back: of a
// large state more than would be needed again within some minutes, since to look for it costs
// seconds of CPU.
func atRest(before, now heap) bool {
	const (
		little = 512 << 10
		some   = 4 << 20 // what is less costs more to look for than it is worth
		minute = uint64(time.Minute / restEvery)
	)
	allocated := now.allocated - before.allocated
	if allocated > little && float64(now.rest) < float64(allocated*minute)*large(now.live) {
		return false
	}
	return allocated < now.live/32+little && now.rest > now.live/16+some
}

// readHeap asks the runtime.
func readHeap() heap {
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/gc/scan/stack:bytes"},
		{Name: "/gc/scan/globals:bytes"},
	}
	metrics.Read(s)
	h := heap{allocated: s[0].Value.Uint64(), live: s[1].Value.Uint64()}
	objects, free := s[2].Value.Uint64(), s[3].Value.Uint64()
	h.rest = free + objects - min(objects, h.live)
	h.used = h.live + s[4].Value.Uint64() + s[5].Value.Uint64()
	return h
}
