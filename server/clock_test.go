package server

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/server/peer"
)

// clocks makes primaries p2, p3, … of which the clocks are so far from the leader's.
func clocks(offsets ...time.Duration) map[string]peer.Primary {
	all := map[string]peer.Primary{"p1": {}}
	for i, d := range offsets {
		all["p"+string(rune('2'+i))] = peer.Primary{ClockOffset: d}
	}
	return all
}

func TestSkew(t *testing.T) {
	doubtful := clocks(4*time.Second, 4*time.Second)
	for id, p := range doubtful {
		p.RTT = 6 * time.Second
		doubtful[id] = p
	}
	for name, test := range map[string]struct {
		known   map[string]peer.Primary
		size    int
		behind  time.Duration
		nearest string
	}{
		"all agree":               {clocks(time.Millisecond, -time.Millisecond), 3, 0, "p2"},
		"another one is wrong":    {clocks(time.Hour, time.Millisecond), 3, time.Millisecond, "p3"},
		"this one is behind":      {clocks(time.Hour, time.Hour+time.Second), 3, time.Hour, "p2"},
		"this one is ahead":       {clocks(-3*time.Second, -5*time.Second), 3, -3 * time.Second, "p2"},
		"each is somewhere else":  {clocks(-time.Hour, time.Hour), 3, 0, "p2"},
		"one of two is wrong":     {clocks(time.Hour), 2, 0, ""},
		"one of three is down":    {clocks(time.Hour), 3, 0, ""},
		"alone":                   {clocks(), 1, 0, ""},
		"four know better":        {clocks(5*time.Second, 6*time.Second, 7*time.Second, 0), 5, 5 * time.Second, "p2"},
		"two agree with it":       {clocks(5*time.Second, 6*time.Second, 0), 5, 0, "p4"},
		"two of five, and it":     {clocks(5*time.Second, 6*time.Second), 5, 5 * time.Second, "p2"},
		"the answers took longer": {doubtful, 3, time.Second, "p2"},
	} {
		if behind, nearest := skew("p1", test.known, test.size); behind != test.behind || nearest != test.nearest {
			t.Errorf("%s: %v, and nearest is %q; want %v, %q", name, behind, nearest, test.behind, test.nearest)
		}
	}
}

// A leader with a wrong clock hands the leadership over, unless it is put right
// before, and says so when it can't.
func TestClockWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		known, handed, fails := clocks(0, 0), []string{}, error(nil)
		c := &clockWatch{
			self: "p1", primaries: func() map[string]peer.Primary { return known }, size: func() int { return 3 },
			transfer: func(_ context.Context, id string) error {
				handed = append(handed, id)
				return fails
			},
			log: slog.New(slog.NewTextHandler(&log, nil)),
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.run(ctx)
		}()
		pass := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		pass(time.Hour)
		known = clocks(3*time.Second, 3*time.Second)
		pass((clockLooks - 1) * clockEvery)
		known = clocks(time.Second, time.Second)
		pass(time.Hour)
		if len(handed) != 0 || log.Len() != 0 {
			t.Errorf("it handed over to %v with a clock that is right by now, and said:\n%s", handed, &log)
		}
		known, fails = clocks(-time.Hour, -time.Hour), errors.New("nobody is there")
		pass(clockLooks * clockEvery)
		if len(handed) != 1 || handed[0] != "p2" || !strings.Contains(log.String(), "see to NTP") || !strings.Contains(log.String(), "nobody is there") {
			t.Errorf("it handed over to %v, and said:\n%s", handed, &log)
		}
		pass(clockRest)
		if len(handed) != 1 {
			t.Errorf("it tried %d times within a minute", len(handed))
		}
		pass(clockRest)
		if len(handed) != 2 {
			t.Errorf("it tried %d times within two minutes, want 2", len(handed))
		}
		stop()
		<-done
	})
}
