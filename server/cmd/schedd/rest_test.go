package main

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestAtRest(t *testing.T) {
	const mb = 1 << 20
	for _, test := range []struct {
		name                  string
		allocated, live, rest uint64 // MB
		want                  bool
	}{
		{"after a burst", 1, 20, 30, true},
		{"a large state after a burst", 20, 1000, 900, true},
		{"at work", 20, 20, 30, false},
		{"a large state at work", 300, 1000, 900, false},
		{"a million jobs, and a hundred runs each second", 25, 1200, 400, false},
		{"a million jobs, and what those need again in minutes", 25, 1200, 800, true},
		{"nothing to give back", 0, 20, 5, false},
		{"a large state that was given back", 0, 1000, 60, false},
		{"small", 0, 0, 4, false},
	} {
		before := heap{allocated: 7 * mb}
		now := heap{allocated: (7 + test.allocated) * mb, live: test.live * mb, rest: test.rest * mb}
		if got := atRest(before, now); got != test.want {
			t.Errorf("%s: %t, want %t", test.name, got, test.want)
		}
	}
}

func TestGrowth(t *testing.T) {
	const mb = 1 << 20
	for _, test := range []struct {
		name       string
		used, pace uint64 // MB
		want       int    // percent
	}{
		{"just started", 0, 0, 100},
		{"small", 20, 0, 100},
		{"small, with little to do", 20, 2, 200},
		{"small, with much to do", 20, 50, 320},
		{"very small, with much to do", 3, 50, 400},
		{"no longer small, with much to do", 64, 50, 100},
		{"ten thousand workers that have nothing to do", 400, 1, 12},
		{"and that have something to do", 400, 5, 25},
		{"and much", 400, 50, 100},
		{"a million jobs, at rest", 1600, 0, 12},
		{"a million jobs, and a few runs each second", 1600, 1, 12},
		{"a million jobs, and a hundred runs each second", 1600, 5, 33},
		{"a million jobs, and many runs", 1600, 50, 100},
	} {
		if got := growth(test.used*mb, test.pace*mb); got != test.want {
			t.Errorf("%s: %d %%, want %d", test.name, got, test.want)
		}
	}
}

// What the runtime says is what atRest goes by: garbage counts, and is gone when memory
// was given back.
func TestReadHeap(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // what is collected while it is made counts as in use
	debug.FreeOSMemory()
	before := readHeap()
	const size = 64 << 20
	garbage := make([]byte, size)
	runtime.KeepAlive(garbage)
	made := readHeap()
	if n := made.allocated - before.allocated; n < size {
		t.Errorf("%d bytes were allocated, want %d or more", n, size)
	}
	if made.used <= made.live {
		t.Errorf("%d bytes are in use, want more than the %d that are reachable", made.used, made.live)
	}
	if made.rest < size*9/10 {
		t.Errorf("%d bytes could be given back, want about %d", made.rest, size)
	}
	debug.FreeOSMemory()
	if after := readHeap(); after.rest > size/2 {
		t.Errorf("%d bytes could be given back after they were", after.rest)
	}
}
