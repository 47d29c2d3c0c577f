package server

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
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
		known  map[string]peer.Primary
		size   int
		behind time.Duration
		right  string
	}{
		"all agree":               {clocks(time.Millisecond, -time.Millisecond), 3, 0, "p2 p3"},
		"another one is wrong":    {clocks(time.Hour, time.Millisecond), 3, time.Millisecond, "p3"},
		"this one is behind":      {clocks(time.Hour, time.Hour+time.Second), 3, time.Hour, "p2 p3"},
		"this one is ahead":       {clocks(-3*time.Second, -5*time.Second), 3, -3 * time.Second, "p2 p3"},
		"each is somewhere else":  {clocks(-time.Hour, time.Hour), 3, 0, ""},
		"one of two is wrong":     {clocks(time.Hour), 2, 0, ""},
		"one of three is down":    {clocks(time.Hour), 3, 0, ""},
		"alone":                   {clocks(), 1, 0, ""},
		"four know better":        {clocks(6*time.Second, 5*time.Second, 7*time.Second, 0), 5, 5 * time.Second, "p3 p2 p4"},
		"two agree with it":       {clocks(5*time.Second, 6*time.Second, 0), 5, 0, "p4"},
		"two of five, and it":     {clocks(5*time.Second, 6*time.Second), 5, 5 * time.Second, "p2 p3"},
		"the answers took longer": {doubtful, 3, time.Second, "p2 p3"},
	} {
		if behind, right := skew("p1", test.known, test.size); behind != test.behind || strings.Join(right, " ") != test.right {
			t.Errorf("%s: %v, and right are %q; want %v, %q", name, behind, right, test.behind, test.right)
		}
	}
}

// odd is a leader whose clock may be wrong, and what is told of it.
type odd struct {
	mu     sync.Mutex // guards the following
	known  map[string]peer.Primary
	votes  []string
	fails  error // of handing the leadership over
	handed []string
	log    bytes.Buffer
}

// is has the other clocks be like that, and handing over fail.
func (o *odd) is(known map[string]peer.Primary, fails error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.known, o.fails = known, fails
}

// did returns to whom it handed over, and what it said.
func (o *odd) did() (handed []string, said string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.handed), o.log.String()
}

func (o *odd) primaries() map[string]peer.Primary {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.known
}

func (o *odd) voters() []string { return o.votes }

func (o *odd) transfer(_ context.Context, id string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.handed = append(o.handed, id)
	return o.fails
}

func (o *odd) Write(line []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.log.Write(line)
}

// A leader with a wrong clock hands the leadership over, unless it is put right
// before, and says so when it can't. It tries all that can lead, the one whose clock is
// nearest first.
func TestClockWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &odd{known: clocks(0, 0, 0), votes: []string{"p1", "p3", "p4"}}
		c := &clockWatch{
			self: "p1", primaries: o.primaries, size: func() int { return 4 }, voters: o.voters, transfer: o.transfer,
			log: slog.New(slog.NewTextHandler(o, nil)),
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
		o.is(clocks(3*time.Second, 3*time.Second, 3*time.Second), nil)
		pass((clockLooks - 1) * clockEvery)
		o.is(clocks(time.Second, time.Second, time.Second), nil)
		pass(time.Hour)
		if handed, said := o.did(); len(handed) != 0 || said != "" {
			t.Errorf("it handed over to %v with a clock that is right by now, and said:\n%s", handed, said)
		}
		o.is(clocks(-time.Hour, -time.Hour-time.Millisecond, -time.Hour), errors.New("nobody is there"))
		pass(clockLooks * clockEvery)
		if handed, said := o.did(); !slices.Equal(handed, []string{"p4", "p3"}) || !strings.Contains(said, "see to NTP") || !strings.Contains(said, "nobody is there") {
			t.Errorf("it handed over to %v, and said:\n%s", handed, said)
		}
		pass(clockRest)
		if handed, _ := o.did(); len(handed) != 2 {
			t.Errorf("it tried %d primaries within a minute, want 2", len(handed))
		}
		pass(clockRest)
		if handed, _ := o.did(); len(handed) != 4 {
			t.Errorf("it tried %d primaries within two minutes, want 4", len(handed))
		}
		stop()
		<-done
	})
}
