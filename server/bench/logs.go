package bench

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/server/bench/measure"
	"github.com/schedd/schedd/server/bench/report"
)

var logs = Scenario{
	Name: "logs",
	What: "output of real processes until it is durable: one job that writes as fast as it can, then 100 jobs at 1 MB/s each; and how long a start takes meanwhile",
	Run:  runLogs,
}

// numbers is what a process writes: whole numbers in a row, one in a line, all with the
// same number of digits. So each byte tells where it belongs.
type numbers struct{ from, count int }

func (n numbers) last() int { return n.from + n.count - 1 }

// size is how many bytes that is.
func (n numbers) size() int64 { return int64(n.count) * int64(len(strconv.Itoa(n.from))+1) }

// write writes what the process does.
func (n numbers) write(w io.Writer) error {
	const atOnce = 64 << 10
	line := make([]byte, 0, atOnce+32)
	for i := n.from; i <= n.last(); i++ {
		line = append(strconv.AppendInt(line, int64(i), 10), '\n')
		if len(line) >= atOnce || i == n.last() {
			if _, err := w.Write(line); err != nil {
				return err
			}
			line = line[:0]
		}
	}
	return nil
}

// sum is the hash of all of it.
func (n numbers) sum() ([sha256.Size]byte, error) {
	h := sha256.New()
	err := n.write(h)
	return [sha256.Size]byte(h.Sum(nil)), err
}

// file makes one with all of it. Processes copy it: to make numbers takes more of the
// processors than all that is measured.
func (n numbers) file(dir string) (path string, err error) {
	path = filepath.Join(dir, "numbers-"+strconv.Itoa(n.from))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return "", fmt.Errorf("make a file to be copied: %w", err)
	}
	err = n.write(f)
	if err == nil {
		err = f.Sync() // or the disk would take it while others are measured
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("make a file to be copied: %w", err)
	}
	return path, nil
}

// argv is the process, which copies a file: all at once, or a part each second. That counts
// from when the process began, however long a part takes.
func (n numbers) argv(path string, parts int) []string {
	const script = `read t _ </proc/uptime; due=${t%.*}${t#*.}; i=0
while [ $i -lt $3 ]; do
	read t _ </proc/uptime; wait=$((due - ${t%.*}${t#*.}))
	if [ $wait -gt 0 ]; then sleep $((wait / 100)).$((wait / 10 % 10))$((wait % 10)); fi
	dd if="$1" bs=$2 skip=$i count=1 2>/dev/null || exit
	due=$((due + 100)); i=$((i + 1))
done`
	if parts == 1 {
		return []string{"cat", path}
	}
	return []string{"/bin/sh", "-c", script, "numbers", path, strconv.FormatInt(n.size()/int64(parts), 10), strconv.Itoa(parts)}
}

// How much is written: 540 MB by one job, and 1 MB a second by each of many.
const (
	manyLogs  = 100
	perSecond = 125_000 // numbers of 7 digits: 1 MB
	logSlots  = manyLogs + 8
	// shipTime bounds how long output may take to become durable.
	shipTime = 10 * time.Minute
)

func runLogs(ctx context.Context, l *Lab, r *report.Result) (err error) {
	base, err := l.StreamCopy(ctx)
	if err != nil {
		return err
	}
	c, err := l.Start(ctx, Setup{Primaries: 1, Workers: 1, Slots: logSlots})
	if err != nil {
		return err
	}
	p, err := l.newPipe(1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	dir, err := l.effects()
	if err != nil {
		return err
	}
	w := &writers{lab: l, cluster: c, dir: dir, starts: &triggers{pipe: p, prefix: newPrefix("logs-start")}}
	if err := c.Put(ctx, []*schedv1.Job{Job(jobName(w.starts.prefix, 0), p.argv(0))}); err != nil {
		return err
	}
	calm, err := w.startsDuring(ctx, func() error { rest(ctx, Pick(l, 5*time.Second, time.Second)); return nil })
	if err != nil {
		return err
	}
	r.Add("control p99, no logs", measure.Milliseconds(measure.Quantile(calm, 0.99)), "ms")

	one := numbers{from: 10_000_000, count: Pick(l, 60_000_000, 1_000_000)}
	if err := w.measure(ctx, r, "one job", base, one, 1, 1); err != nil {
		return err
	}
	seconds, jobs := Pick(l, 20, 2), Pick(l, manyLogs, 10)
	each := numbers{from: 1_000_000, count: seconds * perSecond}
	if err := w.measure(ctx, r, "many jobs", base, each, seconds, jobs); err != nil {
		return err
	}
	missed, twice := p.count(w.starts.asked)
	r.Add("not whole", float64(w.broken), "")
	r.Add("missed", float64(missed), "")
	r.Add("twice", float64(twice), "")
	r.Note("Time counts from the call to RunJob until all output is durable. Each log is then read back, and its length and its hash compared with what was written.")
	r.Note("Control is from the call to RunJob until the process runs, on the worker that sends the output, one each 50 ms.")
	return c.crashed()
}

// writers are jobs that write.
type writers struct {
	lab     *Lab
	cluster *Cluster
	dir     string // where processes may read
	starts  *triggers
	broken  int // logs that were not what was written
}

// measure has jobs write, waits until all of it is durable, and reads it back.
func (w *writers) measure(ctx context.Context, r *report.Result, name string, base float64, each numbers, parts, jobs int) (err error) {
	path, err := each.file(w.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(path)) }()
	prefix := newPrefix("logs")
	list := make([]*schedv1.Job, jobs)
	for i := range list {
		list[i] = Job(jobName(prefix, i), each.argv(path, parts))
		list[i].Policy.LogLimitBytes = 2*each.size() + 1<<20 // half of it is sent while a process runs
	}
	if err := w.cluster.Put(ctx, list); err != nil {
		return err
	}
	before, err := w.cluster.costs()
	if err != nil {
		return err
	}
	var runs []string
	var span, behind time.Duration
	took, err := w.startsDuring(ctx, func() (err error) {
		begin := time.Now()
		if runs, err = w.run(ctx, prefix, jobs); err != nil {
			return err
		}
		var ended time.Time // the last of them
		for _, run := range runs {
			at, err := w.awaitDurable(ctx, run, each.size())
			if err != nil {
				return err
			}
			if at.After(ended) {
				ended = at
			}
		}
		span, behind = time.Since(begin), time.Since(ended)
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	after, err := w.cluster.costs()
	if err != nil {
		return err
	}
	total := float64(each.size()) * float64(jobs)
	perMegabyte := func(from, to Usage) float64 { return measure.Milliseconds(to.Processor-from.Processor) / (total / 1e6) }
	r.Beside(name, total/1e6/span.Seconds(), "MB/s", "a raw gRPC stream", base/1e6)
	r.Add("durable after the last has ended, "+name, behind.Seconds(), "s")
	r.Add("control p50, "+name, measure.Milliseconds(measure.Quantile(took, 0.5)), "ms")
	r.Add("control p99, "+name, measure.Milliseconds(measure.Quantile(took, 0.99)), "ms")
	r.Add("processor of the primary, each MB, "+name, perMegabyte(before.primary, after.primary), "ms")
	r.Add("processor of the agent, each MB, "+name, perMegabyte(before.agent, after.agent), "ms")
	return w.readBack(ctx, runs, each)
}

// run starts one run of each job.
func (w *writers) run(ctx context.Context, prefix string, jobs int) (runs []string, err error) {
	for i := range jobs {
		resp, err := w.cluster.Client().Jobs.RunJob(ctx, &schedv1.RunJobRequest{Namespace: Namespace, Name: jobName(prefix, i)})
		if err != nil {
			return nil, fmt.Errorf("run the job %s: %w", jobName(prefix, i), err)
		}
		runs = append(runs, resp.GetRun().GetId())
	}
	return runs, nil
}

// startsDuring measures how long starts take while f goes on.
func (w *writers) startsDuring(ctx context.Context, f func() error) (took []time.Duration, err error) {
	over := make(chan error, 1)
	go func() { over <- f() }()
	ended := false
	s := w.starts.callOne(ctx, w.cluster.Client(), 0, func() bool {
		if !rest(ctx, dispatchEach) {
			return false
		}
		select {
		case err = <-over:
			ended = true
			return false
		default:
			return true
		}
	})
	w.starts.asked = append(w.starts.asked, s.asked...)
	if !ended {
		err = <-over
	}
	return s.took, errors.Join(err, s.err)
}

// awaitDurable waits until a run has succeeded and its whole log is durable, and returns
// when its process had ended.
func (w *writers) awaitDurable(ctx context.Context, run string, size int64) (ended time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, shipTime)
	defer cancel()
	for {
		resp, err := w.cluster.Client().Runs.GetRun(ctx, &schedv1.GetRunRequest{Id: run})
		if err != nil {
			return ended, fmt.Errorf("ask for the run %s: %w", run, err)
		}
		got := resp.GetRun()
		last := got.GetAttempts()
		switch {
		case got.GetPhase() == schedv1.Phase_PHASE_SUCCEEDED && len(last) > 0 && last[0].GetLogDurableBytes() >= size:
			return last[0].GetFinishedTime().AsTime(), nil
		case got.GetFinishedTime() != nil && got.GetPhase() != schedv1.Phase_PHASE_SUCCEEDED:
			return ended, fmt.Errorf("the run %s did not succeed: it is %v, %s", run, got.GetPhase(), got.GetReason())
		case !rest(ctx, lookAgain):
			return ended, fmt.Errorf("wait until the log of run %s is durable: %w: it is %v", run, context.Cause(ctx), got)
		}
	}
}

// readBack reads all logs, and counts those that are not what was written.
func (w *writers) readBack(ctx context.Context, runs []string, want numbers) error {
	w.lab.Say("%d logs of %.0f MB are durable; now they are read back", len(runs), Megabytes(want.size()))
	sum, err := want.sum()
	if err != nil {
		return err
	}
	for _, run := range runs {
		size, got, err := readLog(ctx, w.cluster.Client(), run)
		if err != nil {
			return err
		}
		if size != want.size() || got != sum {
			w.broken++
			w.lab.Say("the log of run %s has %d bytes with the hash %x, and %d with %x were written", run, size, got[:4], want.size(), sum[:4])
		}
	}
	return nil
}

// readLog reads a log.
func readLog(ctx context.Context, client *Client, run string) (size int64, sum [sha256.Size]byte, err error) {
	stream, err := client.Runs.ReadLog(ctx, &schedv1.ReadLogRequest{RunId: run})
	if err != nil {
		return 0, sum, fmt.Errorf("read the log of run %s: %w", run, err)
	}
	h := sha256.New()
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return size, [sha256.Size]byte(h.Sum(nil)), nil
		}
		if err != nil {
			return size, sum, fmt.Errorf("read the log of run %s: %w", run, err)
		}
		if m.GetOffset() != size && len(m.GetData()) > 0 {
			return size, sum, fmt.Errorf("read the log of run %s: byte %d came after byte %d", run, m.GetOffset(), size)
		}
		size += int64(len(m.GetData()))
		h.Write(m.GetData())
	}
}
