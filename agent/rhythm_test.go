package agent

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/schedd/schedd/agent/session"
	"github.com/schedd/schedd/proto/wire"
)

// Two tries that hang, one after the other, cost less than 5 s.
func TestTwoHangingTriesAreOverSoon(t *testing.T) {
	worst := pause(1, 0, 1) + wire.Patience(0, 0) + pause(1, 0, 1) + wire.Patience(1, 0) + pause(1, 0, 1)
	if worst >= 5*time.Second {
		t.Errorf("the third try begins after up to %v", worst)
	}
}

// Statuses that may be meant are taken for a mistake at first, and slow the
// worker down later, but never for longer than a minute.
func TestPause(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		failures, refusals := rapid.IntRange(1, 100).Draw(t, "failures"), rapid.IntRange(0, 100).Draw(t, "refusals")
		r := rapid.Float64Range(0, 1).Draw(t, "r")
		got := pause(failures, refusals, r)
		switch {
		case refusals <= hasty && got != wire.Backoff(failures, r):
			t.Fatalf("%v, want what is usual", got)
		case refusals > hasty && (got < 30*time.Second || got > time.Minute):
			t.Fatalf("%v, want 30 s to a minute", got)
		}
	})
}

// Only what a primary could mean for good slows down, and never its own word.
func TestMayBeMeant(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errors.New("connection refused"), false},
		{fmt.Errorf("connect: %w", status.Error(codes.Unimplemented, "404 (Not Found)")), true},
		{errors.Join(fmt.Errorf("say hello: %w", status.Error(codes.PermissionDenied, "403")), nil), true},
		{status.Error(codes.Unauthenticated, "401"), true},
		{status.Error(codes.Unavailable, "502"), false},
		{status.Error(codes.Internal, "RST_STREAM"), false},
		{&session.Rejected{Reason: "unknown"}, false},
	} {
		if got := mayBeMeant(test.err); got != test.want {
			t.Errorf("%v: %v, want %v", test.err, got, test.want)
		}
	}
}

func TestRhythm(t *testing.T) {
	s := func(seconds ...float64) (list []time.Duration) {
		for _, n := range seconds {
			list = append(list, time.Duration(n*float64(time.Second)))
		}
		return list
	}
	for _, test := range []struct {
		name string
		cuts []time.Duration
		want time.Duration // the limit at the end
		news int           // times people were told
	}{
		{"never cut", nil, 0, 0},
		{"twice may be chance", s(60, 60), 0, 0},
		{"three times is not", s(60, 60, 60), 60 * time.Second, 1},
		{"within 5 %", s(61, 60, 63), 60 * time.Second, 1},
		{"not alike", s(60, 64, 61), 0, 0},
		{"after others", s(5, 600, 31, 30, 30.5), 30 * time.Second, 1},
		{"told once", s(60, 60, 60, 61, 60, 60), 60 * time.Second, 1},
		{"another limit", s(60, 60, 60, 300, 300, 300), 300 * time.Second, 2},
		{"too short to stay below", s(2, 2, 2, 2), 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			var r rhythm
			now, news := time.Unix(0, 0), 0
			for _, age := range test.cuts {
				if _, told := r.cut(age, now); told {
					news++
				}
			}
			if r.limit != test.want || news != test.news {
				t.Errorf("limit %v, told %d times; want %v, %d", r.limit, news, test.want, test.news)
			}
			early, late := r.rotation(now, 0), r.rotation(now, 1).Round(time.Millisecond)
			if test.want == 0 {
				if early != never || late != never {
					t.Errorf("replaced after %v to %v without a limit", early, late)
				}
				return
			}
			if part := test.want / 10; early != 7*part || late != 8*part {
				t.Errorf("replaced after %v to %v, want 0.7 to 0.8 of %v", early, late, test.want)
			}
			if got := r.rotation(now.Add(25*time.Hour), 0); got != never {
				t.Errorf("a day later it is still replaced after %v: nobody would see that it is mended", got)
			}
		})
	}
}

// Whatever came before, and however late each cut is seen, a clock is recognised
// and streams are replaced before it strikes.
func TestRhythmKnowsAClock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := time.Duration(rapid.Int64Range(int64(shortestLimit), int64(2*time.Hour)).Draw(t, "limit"))
		var r rhythm
		for range rapid.IntRange(0, 5).Draw(t, "others") {
			r.cut(time.Duration(rapid.Int64Range(0, int64(2*time.Hour)).Draw(t, "age")), time.Time{})
		}
		for range alikeCuts {
			r.cut(limit+time.Duration(rapid.Int64Range(0, int64(limit)/50).Draw(t, "late")), time.Time{})
		}
		if at := r.rotation(time.Time{}, 0.999); at >= limit {
			t.Fatalf("with a limit of %v streams are replaced after %v", limit, at)
		}
	})
}
