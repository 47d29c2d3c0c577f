package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/raftstore/bareraft"
	"github.com/schedd/schedd/server/bench/baseline"
)

// Baselines are what the machine does without schedd, or while that has nothing to do. How fast
// it starts programs is measured before and after what is held against that; the others when they
// are first asked for, and then they are known to all scenarios of a run.
type Baselines struct {
	dir  string
	span time.Duration
	say  *teller

	mu    sync.Mutex // guards known, and lets one be measured at a time
	known map[string]float64
}

func newBaselines(dir string, quick bool, say *teller) *Baselines {
	b := &Baselines{dir: dir, span: 5 * time.Second, say: say, known: map[string]float64{}}
	if quick {
		b.span = time.Second
	}
	return b
}

// Loops is with how many loops programs are started to measure how fast that goes: more
// than there are cores, so that none of them waits.
func Loops() int { return 2 * runtime.NumCPU() }

// ForkExec is how many programs the machine starts per second, with [Loops], as it is now.
func (b *Baselines) ForkExec(ctx context.Context) (float64, error) {
	return b.measured("programs started per second by bare fork and exec", func() (float64, error) {
		return baseline.ForkExec(ctx, Loops(), b.span)
	})
}

// ForkExecAround does what is to be held against [Baselines.ForkExec], and returns the mean of
// that just before and just after, when what was begun has had a moment to end: a virtual
// machine has a fifth more or less to give from one minute to the next.
func (b *Baselines) ForkExecAround(ctx context.Context, do func(before float64) error) (perSecond float64, err error) {
	before, err := b.ForkExec(ctx)
	if err != nil {
		return 0, err
	}
	if err := do(before); err != nil {
		return 0, err
	}
	if !rest(ctx, b.span/2) {
		return 0, ctx.Err()
	}
	after, err := b.ForkExec(ctx)
	return (before + after) / 2, err
}

// sameProcess is how many processes that write down that they began the machine starts per
// second, with [Loops]: those of sustain and burst, without schedd.
func (b *Baselines) sameProcess(ctx context.Context, e *effects) (float64, error) {
	return b.measured("processes as those of the jobs started per second by bare fork and exec", func() (float64, error) {
		env := []string{"SCHEDD_JOB=bare", "SCHEDD_SCHEDULED_AT=" + time.Unix(0, 0).UTC().Format(time.RFC3339)}
		return baseline.Rate(ctx, Loops(), b.span, func() error { return baseline.Run(ctx, e.argv(), env...) })
	})
}

// BareRaft is how many entries of a size a bare Raft loop applies per second, for a
// number of callers.
func (b *Baselines) BareRaft(ctx context.Context, callers, size int) (float64, error) {
	name := fmt.Sprintf("entries of %d bytes applied per second by a bare Raft loop with %d callers", size, callers)
	return b.once(name, func() (rate float64, err error) {
		dir, err := os.MkdirTemp(b.dir, "raft-")
		if err != nil {
			return 0, fmt.Errorf("make a directory for a bare Raft loop: %w", err)
		}
		return bareraft.Rate(ctx, dir, callers, size, b.span)
	})
}

// piece is how much of a log goes in one message.
const piece = 64 << 10

// StreamCopy is how many bytes per second one gRPC stream carries.
func (b *Baselines) StreamCopy(ctx context.Context) (float64, error) {
	return b.once("bytes copied per second by a raw gRPC stream", func() (float64, error) {
		return baseline.StreamCopy(ctx, baseline.Options{Server: wire.ServerOptions(), Dial: wire.DialOptions()}, piece, b.span)
	})
}

// once measures what is not known yet.
func (b *Baselines) once(name string, f func() (float64, error)) (float64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if value, ok := b.known[name]; ok {
		return value, nil
	}
	value, err := b.measured(name, f)
	if err != nil {
		return 0, err
	}
	b.known[name] = value
	return value, nil
}

// measured measures, and tells what it found.
func (b *Baselines) measured(name string, f func() (float64, error)) (float64, error) {
	value, err := f()
	if err != nil {
		return 0, err
	}
	b.say.say("baseline: %.0f %s", value, name)
	return value, nil
}

// Programs are the paths of the programs beside this one.
func Programs() (schedd, agent string, err error) {
	if schedd, err = os.Executable(); err != nil {
		return "", "", fmt.Errorf("find this program: %w", err)
	}
	agent = filepath.Join(filepath.Dir(schedd), "schedagent")
	if _, err := os.Stat(agent); err != nil {
		return "", "", fmt.Errorf("schedagent has to be beside schedd: %w", err)
	}
	return schedd, agent, nil
}
