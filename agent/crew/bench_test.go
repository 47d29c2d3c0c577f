package crew_test

import (
	"testing"

	"github.com/schedd/schedd/agent/crew"
)

// The price of a short piece of work that needs some stack, where most of those who are kept
// have nothing to do:
//
//	go test -run '^$' -bench Go ./agent/crew
func BenchmarkGo(b *testing.B) {
	c := crew.New(128)
	defer c.Rest()
	done := make(chan byte, 128)
	release := make(chan struct{})
	for range cap(done) {
		c.Go(func() { <-release; done <- deep(64) })
	}
	close(release)
	for range cap(done) {
		<-done
	}
	for b.Loop() {
		c.Go(func() { done <- deep(64) })
		<-done
	}
}

// deep needs so many times 128 bytes of stack.
func deep(n int) byte {
	var room [128]byte
	if n > 0 {
		room[n] = deep(n - 1)
	}
	return room[n] + byte(n)
}
