package gather

import (
	"testing"
	"time"
)

// Company is expected of a steady stream, and not after a pause.
func TestBusy(t *testing.T) {
	began := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name string
		at   []time.Duration
		want bool // of the last one
	}{
		{"the first", []time.Duration{0}, false},
		{"the fourth", []time.Duration{0, 0, 0, 0}, false},
		{"one more", []time.Duration{0, 0, 0, 0, 0}, true},
		{"one more, as late as that", []time.Duration{0, 5, 10, 15, 20}, true},
		{"one more, later", []time.Duration{0, 5, 10, 15, 21}, false},
		{"seldom", []time.Duration{0, 10, 20, 30, 40, 50, 60, 70}, false},
		{"after a pause", []time.Duration{0, 1, 2, 3, 4, 5, 1000}, false},
		{"soon after a pause", []time.Duration{0, 1, 2, 3, 4, 5, 1000, 1001, 1002, 1003}, false},
		{"some time after a pause", []time.Duration{0, 1, 2, 3, 4, 5, 1000, 1001, 1002, 1003, 1004}, true},
	} {
		var r Rhythm
		var got bool
		for _, at := range c.at {
			got = r.Busy(began.Add(at * time.Millisecond))
		}
		if got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
