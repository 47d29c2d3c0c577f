// Package bench measures schedd: scenarios that start what they need on this host, load
// it, and look at it from outside, from what the started processes themselves write down
// and from /proc. Each figure is shown beside what the machine does without schedd.
//
// It says what is; it never judges slowness a failure. Only a broken promise is one: an
// occurrence that was missed, or started twice.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/schedd/schedd/server/bench/report"
)

// Config says what to measure, and where.
type Config struct {
	// Schedd and Agent are the programs, by their paths.
	Schedd, Agent string
	// Dir is where a directory for all data is made; empty: where the system has
	// temporary files. Raft's log is there too, so it should be a real disk.
	Dir string
	// Servers is the API of a cluster that runs, to be measured in place of those that
	// are started here.
	Servers []string
	// Effects is an absolute directory in which the processes of that cluster's workers
	// may write, on this host; empty: one below Dir.
	Effects string
	// Scenarios are run in this order.
	Scenarios []Scenario
	// Quick makes all small and short.
	Quick bool
	// Out is told what happens, and all figures.
	Out io.Writer
}

// Scenario is one thing to measure.
type Scenario struct {
	Name string
	What string // is measured, in a line
	// Anywhere tells that it can be measured on a cluster that runs. The others kill,
	// or need one that is empty.
	Anywhere bool
	// Run measures, and adds figures to the result as they come. An error says why not
	// all could be measured.
	Run func(context.Context, *Lab, *report.Result) error
}

// Run measures. An error says that nothing could be, or that something was left behind.
func Run(ctx context.Context, c Config) (r report.Report, err error) {
	dir, err := os.MkdirTemp(c.Dir, "schedd-bench-")
	if err != nil {
		return r, fmt.Errorf("make a directory for what is measured: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // workers may be other users
		return r, fmt.Errorf("make a directory for what is measured: %w", err)
	}
	r = report.Report{Program: program(), Machine: machine(dir), Start: time.Now().UTC(), Quick: c.Quick}
	say := sayer(c.Out)
	say.text(r.Heading() + "\n")
	bases := newBaselines(dir, c.Quick, say)
	keep := false
	for _, s := range c.Scenarios {
		if ctx.Err() != nil {
			break
		}
		result := report.Result{Scenario: s.Name, What: s.What}
		begin := time.Now()
		kept, failed := measureOne(ctx, c, s, filepath.Join(dir, s.Name), bases, say, &result)
		result.Took = time.Since(begin)
		if failed != nil {
			result.Unmeasured = failed.Error()
		}
		keep = keep || kept
		r.Results = append(r.Results, result)
		say.text("\n" + result.Block() + "\n")
	}
	if keep {
		say.say("kept %s, with the data and the logs of what failed", dir)
		return r, nil
	}
	return r, os.RemoveAll(dir)
}

// measureOne runs one scenario, and removes all that it made unless that shows why it
// failed.
func measureOne(ctx context.Context, c Config, s Scenario, dir string, bases *Baselines, say *teller, r *report.Result) (kept bool, err error) {
	if len(c.Servers) > 0 && !s.Anywhere {
		return false, errors.New("it needs a cluster of its own: run it without --server")
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return false, fmt.Errorf("make a directory: %w", err)
	}
	l := &Lab{Quick: c.Quick, Dir: dir, Baselines: bases, config: c, say: say, name: s.Name}
	say.say("%s: %s", s.Name, s.What)
	err = s.Run(ctx, l, r)
	err = errors.Join(err, l.stop(ctx))
	if err == nil && len(r.Broken()) == 0 || ctx.Err() != nil {
		return false, errors.Join(err, os.RemoveAll(dir), os.RemoveAll(l.effectsDir()))
	}
	return true, err
}
