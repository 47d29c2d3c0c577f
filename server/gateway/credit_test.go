package gateway

import (
	"testing"
	"time"

	"github.com/schedd/schedd/proto/wire"
)

// What is on its way takes 20 ms at most, or is as little as ever.
func TestCreditFollowsTheRate(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes int // each 10 ms
		want  int64
	}{
		{"nothing", 0, wire.LogCredit},
		{"a slow line", 12_500, wire.LogCredit},
		{"just what takes as long", wire.LogCredit / 2, wire.LogCredit},
		{"a fast one", 200_000, 400_000},
		{"a very fast one", 10 << 20, maxCredit},
	} {
		t.Run(c.name, func(t *testing.T) {
			now, grant := time.Unix(0, 0), newCredit()
			for range 50 {
				now = now.Add(10 * time.Millisecond)
				grant.answered(c.bytes, now)
			}
			if grant.granted != c.want {
				t.Errorf("%d bytes, want %d", grant.granted, c.want)
			}
			now = now.Add(time.Minute)
			if got := grant.answered(c.bytes, now); got != wire.LogCredit {
				t.Errorf("after a pause: %d bytes", got)
			}
		})
	}
}
