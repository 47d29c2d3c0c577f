package measure

import (
	"slices"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = 100 - i
	}
	for _, test := range []struct {
		all  []int
		q    float64
		want int
	}{
		{nil, 0.5, 0},
		{[]int{7}, 0, 7},
		{[]int{7}, 1, 7},
		{[]int{3, 1, 2}, 0.5, 2},
		{[]int{4, 3, 1, 2}, 0.5, 2},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 0.991, 100},
		{hundred, 1, 100},
	} {
		if got := Quantile(test.all, test.q); got != test.want {
			t.Errorf("%v of %v is %d, want %d", test.q, test.all, got, test.want)
		}
	}
	if hundred[0] != 100 {
		t.Error("it sorts what it was given")
	}
}

func TestRate(t *testing.T) {
	if got := Rate(30, 2*time.Second); got != 15 {
		t.Error(got)
	}
	if got := Rate(30, 0); got != 0 {
		t.Error(got)
	}
	if got := Milliseconds(1500 * time.Microsecond); got != 1.5 {
		t.Error(got)
	}
}

func TestCount(t *testing.T) {
	at := func(second, late int) time.Time {
		return time.Unix(int64(second), 0).Add(time.Duration(late) * time.Millisecond)
	}
	start := func(job string, second, late int) Start {
		return Start{Occurrence{job, int64(second)}, at(second, late)}
	}
	due := []Due{
		{Occurrence{"a", 10}, at(10, 0)},
		{Occurrence{"a", 11}, at(11, 0)},
		{Occurrence{"b", 10}, at(10, 0)},
		{Occurrence{"b", 11}, at(11, 10)}, // by its jitter
	}
	all := []Start{start("a", 10, 5), start("a", 11, 40), start("b", 10, 20), start("b", 11, 30)}
	for name, test := range map[string]struct {
		starts []Start
		want   Tally // without Lateness
		late   []time.Duration
	}{
		"all":     {all, Tally{Due: 4, Started: 4, Last: at(11, 40)}, []time.Duration{5, 20, 20, 40}},
		"nothing": {nil, Tally{Due: 4, Missed: 4}, nil},
		"one is missed": {
			all[:3],
			Tally{Due: 4, Started: 3, Missed: 1, Last: at(11, 40)},
			[]time.Duration{5, 20, 40},
		},
		"one comes again and again": {
			append(slices.Clone(all), start("b", 11, 900), start("b", 11, 950)),
			Tally{Due: 4, Started: 4, Twice: 2, Last: at(11, 40)},
			[]time.Duration{5, 20, 20, 40},
		},
		"the first counts, wherever it is written": {
			append([]Start{start("b", 11, 900)}, all...),
			Tally{Due: 4, Started: 4, Twice: 1, Last: at(11, 40)},
			[]time.Duration{5, 20, 20, 40},
		},
		"one that was not due, and an unknown job": {
			append(slices.Clone(all), start("a", 12, 1), start("c", 10, 1)),
			Tally{Due: 4, Started: 4, Stray: 2, Last: at(11, 40)},
			[]time.Duration{5, 20, 20, 40},
		},
	} {
		got := Count(due, test.starts)
		late := slices.Sorted(slices.Values(got.Lateness))
		for i := range test.late {
			test.late[i] *= time.Millisecond
		}
		if !slices.Equal(late, test.late) {
			t.Errorf("%s: late by %v, want %v", name, late, test.late)
		}
		got.Lateness = nil
		if got.Due != test.want.Due || got.Started != test.want.Started || got.Missed != test.want.Missed || got.Twice != test.want.Twice ||
			got.Stray != test.want.Stray || !got.Last.Equal(test.want.Last) {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

// A search comes close to what is carried, wherever it begins, and its answer was
// confirmed at full length.
func TestSearch(t *testing.T) {
	for _, test := range []struct {
		guess, short, long int
		most, mostFull     int // carried by short runs, and by long ones
		low, high          int // what is to be found
	}{
		{400, 12, 5, 400, 400, 380, 400},
		{400, 12, 5, 1000, 1000, 940, 1000},
		{400, 12, 5, 970, 900, 780, 900},
		{400, 12, 5, 90, 90, 84, 90},
		{400, 12, 5, 3, 3, 3, 3},
		{400, 12, 5, 1, 1, 1, 1},
		{1, 12, 5, 1, 1, 1, 1},
		{0, 12, 5, 7, 7, 7, 7},
		{400, 12, 5, 500, 210, 100, 210},
		{400, 12, 5, 0, 0, 0, 0},
		{400, 12, 5, 500, 0, 0, 0},
		{400, 2, 1, 900, 900, 601, 601}, // it has no time for more
		{400, 1, 2, 150, 150, 0, 0},     // likewise
		{400, 1, 2, 190, 190, 190, 190}, // 400, then at full length 200 and 190
		{mostLoad, 3, 1, mostLoad * 2, mostLoad * 2, mostLoad, mostLoad},
	} {
		s, confirmed := NewSearch(test.guess, test.short, test.long), 0
		short, long := 0, 0
		for n, full, ok := s.Next(); ok; n, full, ok = s.Next() {
			carried := n <= test.most
			if full {
				long++
				carried = n <= test.mostFull
			} else {
				short++
			}
			if n <= 0 || n > mostLoad || short > test.short || long > test.long {
				t.Fatalf("%+v: it tries %d after %d short and %d long runs", test, n, short, long)
			}
			if full && carried {
				confirmed = n
			}
			s.Tell(carried)
		}
		if got := s.Found(); got < test.low || got > test.high || got != confirmed {
			t.Errorf("%+v: found %d in %d and %d runs, confirmed was %d", test, got, short, long, confirmed)
		}
	}
}
