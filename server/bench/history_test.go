package bench

import (
	"testing"
	"time"
)

func TestNextLoad(t *testing.T) {
	for _, test := range []struct {
		load, most int
		late       time.Duration
		want       int
	}{
		{500, 5_000, 0, 750},
		{500, 5_000, carriedWithin, 750},
		{4_000, 5_000, 0, 5_000},
		{500, 5_000, carriedWithin + 1, 500},
		{500, 5_000, tooMuchAfter, 500},
		{500, 5_000, tooMuchAfter + 1, 250},
		{1, 5_000, time.Hour, 1},
	} {
		if got := nextLoad(test.load, test.most, test.late); got != test.want {
			t.Errorf("after %d jobs of %d that ended %v late: %d, want %d", test.load, test.most, test.late, got, test.want)
		}
	}
}
