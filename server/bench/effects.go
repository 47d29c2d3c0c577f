package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/schedd/schedd/server/bench/measure"
	"github.com/schedd/schedd/server/bench/report"
)

// effects is a file in which processes write down that they began: one line each, when,
// for which job and for which instant. It is all that the figures are made of, and the
// product has no hand in it.
type effects struct {
	name string
	boot time.Time // when the clock of processes began
}

// bareStarts tells beside a rate how often the machine starts the process of these jobs
// without schedd: it costs more than /bin/true.
func (l *Lab) bareStarts(ctx context.Context, r *report.Result, bare float64) error {
	e, err := l.newEffects("bare")
	if err != nil {
		return err
	}
	same, err := l.sameProcess(ctx, e)
	if err != nil {
		return err
	}
	r.Beside("the same process, bare", same, "/s", "bare fork and exec", bare)
	return os.Remove(e.name)
}

// uptime is the cheapest clock for a process: a shell reads it without starting another
// program. It shows hundredths of a second, always rounded down.
const (
	uptime     = "/proc/uptime"
	resolution = 10 * time.Millisecond
)

// newEffects makes an empty file.
func (l *Lab) newEffects(name string) (*effects, error) {
	dir, err := l.effects()
	if err != nil {
		return nil, err
	}
	e := &effects{name: filepath.Join(dir, name)}
	const anybody = 0o666
	if err := errors.Join(os.WriteFile(e.name, nil, anybody), os.Chmod(e.name, anybody)); err != nil {
		return nil, fmt.Errorf("make a file for what processes write down: %w", err)
	}
	if e.boot, err = boot(); err != nil {
		return nil, err
	}
	return e, nil
}

// argv is a process that costs little more than /bin/true: a shell that uses nothing but
// what is built into it.
func (e *effects) argv() []string {
	return []string{"/bin/sh", "-c", `read t _ <` + uptime + `; echo "$t $SCHEDD_JOB $SCHEDD_SCHEDULED_AT" >>"$0"`, e.name}
}

// bootLooks is for how long the clock of [uptime] is looked at.
const bootLooks = 5 * resolution

// boot is when that clock was 0. It is behind by up to its resolution, and least so in the
// moment in which it ticks.
func boot() (earliest time.Time, err error) {
	for begin := time.Now(); time.Since(begin) < bootLooks; {
		up, at, err := readUptime()
		if err != nil {
			return at, fmt.Errorf("find out how the clock of processes goes: %w", err)
		}
		if zero := at.Add(-up); earliest.IsZero() || zero.Before(earliest) {
			earliest = zero
		}
	}
	return earliest, nil
}

func readUptime() (up time.Duration, at time.Time, err error) {
	text, err := os.ReadFile(uptime)
	if err != nil {
		return 0, at, err
	}
	up, err = parseUptime(string(text))
	return up, time.Now(), err
}

// parseUptime reads "SECONDS.HUNDREDTHS ...".
func parseUptime(text string) (time.Duration, error) {
	first, _, _ := strings.Cut(text, " ")
	up, err := time.ParseDuration(first + "s")
	if err != nil {
		return 0, fmt.Errorf("read %q: %w", first, err)
	}
	return up, nil
}

// quiet is how long nothing is written down until nothing more is waited for: what comes
// later counts as missed.
const quiet = time.Minute

// await waits until n processes have begun, or none for a while.
func (e *effects) await(ctx context.Context, n int) error {
	f, err := os.Open(e.name)
	if err != nil {
		return fmt.Errorf("read what processes write down: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	var buffer [64 << 10]byte
	for last, begun := time.Now(), 0; begun < n && time.Since(last) < quiet; {
		size, err := f.Read(buffer[:])
		begun += bytes.Count(buffer[:size], []byte("\n"))
		switch {
		case size > 0:
			last = time.Now()
		case err != nil && !errors.Is(err, io.EOF):
			return fmt.Errorf("read what processes write down: %w", err)
		case !rest(ctx, lookAgain):
			return ctx.Err()
		}
	}
	return nil
}

// starts reads which processes began. Each is said to have begun as late as its clock
// allows.
func (e *effects) starts() ([]measure.Start, error) {
	text, err := os.ReadFile(e.name)
	if err != nil {
		return nil, fmt.Errorf("read what processes wrote down: %w", err)
	}
	starts, err := parseStarts(string(text), e.boot)
	if err != nil {
		return nil, fmt.Errorf("read what processes wrote down in %s: %w", e.name, err)
	}
	return starts, nil
}

func parseStarts(text string, boot time.Time) (starts []measure.Start, err error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return nil, fmt.Errorf("line %d is %q: %w", len(starts)+1, line, errors.New("want when, job and instant"))
		}
		up, err := parseUptime(fields[0])
		if err != nil {
			return nil, err
		}
		nominal, err := time.Parse(time.RFC3339Nano, fields[2])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", len(starts)+1, err)
		}
		starts = append(starts, measure.Start{
			Occurrence: measure.Occurrence{Job: fields[1], Nominal: nominal.Unix()}, At: boot.Add(up + resolution),
		})
	}
	return starts, nil
}

// jobName is the name of the i-th of many jobs.
func jobName(prefix string, i int) string { return prefix + strconv.Itoa(i) }

// jobNames are the first n of them.
func jobNames(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = jobName(prefix, i)
	}
	return names
}
