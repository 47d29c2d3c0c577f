//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// tortured bounds how long a torture may take: nothing but one that is broken does.
const tortured = 25 * time.Minute

// torture starts schedd torture, with a directory of its own for what is temporary.
func torture(t *testing.T, temp string, args ...string) *process {
	t.Helper()
	return start(t, "schedd torture", []string{"TMPDIR=" + temp}, append([]string{binary("schedd"), "torture"}, args...)...)
}

// verdict waits for the end of a torture, and returns what it said.
func (p *process) verdict(t *testing.T) (code int, said string) {
	t.Helper()
	timer := time.NewTimer(tortured)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		t.Fatalf("%s does not end; it said:\n%s", p.name, readFile(t, p.out))
	}
	return p.code, readFile(t, p.out) + readFile(t, p.log)
}

// mostSpan is for how long a cluster is tortured, at most, until somebody is harmed.
const mostSpan = 3 * time.Minute

// harmed tortures for longer and longer until somebody is harmed: on a machine that is
// slow the time may be over before the cluster is well enough for a fault, and then
// nothing is judged.
func harmed(span time.Duration, torture func(span string) (code int, said string)) (code int, said string) {
	for ; ; span *= 3 {
		code, said = torture(span.String())
		if span >= mostSpan || !strings.Contains(said, "no fault was carried out") {
			return code, said
		}
	}
}

// A cluster of real processes is harmed for a while, keeps all promises, and leaves
// nothing behind.
func TestTorture(t *testing.T) {
	t.Parallel()
	var temp string
	code, said := harmed(25*time.Second, func(span string) (int, string) {
		temp = t.TempDir() // one that is not judged keeps its directory
		return torture(t, temp, "--local", "--primaries", "3", "--workers", "2", "--for", span, "--settle", "20m").verdict(t)
	})
	if code != 0 || !strings.Contains(said, "all promises were kept") || !regexp.MustCompile(`(\d+) expected, (\d+) decided, 0 missed, 0 twice`).MatchString(said) {
		t.Errorf("it exits with %d, and says:\n%s", code, said)
	}
	left, err := os.ReadDir(temp)
	if err != nil || len(left) > 0 && code == 0 {
		t.Errorf("it left %v behind, %v", left, err)
	}
	noneLeft(t, temp)
}

// A torture of its own cluster that is stopped in the middle takes all of it along.
func TestTortureIsStopped(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	p := torture(t, temp, "--local", "--workers", "2", "--for", "1h")
	await(t, "somebody is harmed", func() (bool, any) {
		said := readFile(t, p.out)
		return strings.Contains(said, "kill -9 of") || strings.Contains(said, "SIGSTOP of"), said
	})
	p.signal(t, syscall.SIGTERM)
	code, said := p.verdict(t)
	left, err := os.ReadDir(temp)
	if code != 2 || !strings.Contains(said, "not judged: it was stopped before its end") || len(left) > 0 || err != nil {
		t.Errorf("it exits with %d, leaves %v behind, %v, and says:\n%s", code, left, err, said)
	}
	noneLeft(t, temp)
}

// noneLeft looks for processes that have to do with a directory.
func noneLeft(t *testing.T, dir string) {
	t.Helper()
	for _, pid := range processes(t) {
		if line := cmdline(pid); strings.Contains(line, dir) {
			t.Errorf("process %d is left: %s", pid, line)
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
	}
}

// cutsFirst is a seed whose first fault of a primary is a cut.
const cutsFirst = "88"

// In a network of its own primaries are cut off as well, and no rule is left.
func TestTortureCutsLinks(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"unshare", "ip", "iptables"} {
		if _, err := exec.LookPath(name); err != nil || os.Getuid() != 0 {
			t.Skipf("it needs root and the command %s", name)
		}
	}
	temp := t.TempDir()
	code, said := harmed(20*time.Second, func(span string) (int, string) {
		return start(t, "schedd torture", []string{"TMPDIR=" + temp}, "unshare", "-n", "/bin/sh", "-c",
			`ip link set lo up && "$0" "$@"; code=$?; iptables -S; exit $code`,
			binary("schedd"), "torture", "--local", "--workers", "1", "--for", span, "--settle", "20m", "--cut-links", "--seed", cutsFirst).verdict(t)
	})
	if code != 0 || !strings.Contains(said, "all promises were kept") || !strings.Contains(said, "-P INPUT ACCEPT") || strings.Contains(said, "-N ") {
		t.Errorf("it exits with %d, and says:\n%s", code, said)
	}
}

// tortureJobs are the jobs that tortures have made and not removed.
func (w *world) tortureJobs(t *testing.T) []*schedv1.Job {
	t.Helper()
	return w.jobsOf(t, "torture")
}

// jobsOf are the jobs of a namespace.
func (w *world) jobsOf(t *testing.T, namespace string) []*schedv1.Job {
	t.Helper()
	resp, err := w.jobs.ListJobs(t.Context(), &schedv1.ListJobsRequest{Filter: "namespace=" + namespace})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetJobs()
}

// effectFile waits until a process of a torture has written down that it began, and
// returns the file and the line.
func effectFile(t *testing.T, dir string) (file, line string) {
	t.Helper()
	await(t, "a process writes down that it began", func() (bool, any) {
		files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
		for _, file = range files {
			text := readFile(t, file)
			if i := strings.Index(text, "\n"); i > 0 {
				line = text[:i+1]
				return true, file
			}
		}
		return false, err
	})
	return file, line
}

// On a cluster that runs nothing is harmed, and what was made there is removed,
// also when the torture is stopped in the middle.
func TestTortureOfAClusterThatRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "--slots", "50")
	effects := t.TempDir()
	p := torture(t, t.TempDir(), "--server", w.api, "--for", "12s", "--settle", "20m", "--effects", effects)
	effectFile(t, effects)
	if code, said := p.verdict(t); code != 0 || !strings.Contains(said, "the other promises were kept") || strings.Contains(said, "0 begun") {
		t.Errorf("it exits with %d, and says:\n%s", code, said)
	}

	p = torture(t, t.TempDir(), "--server", w.api, "--for", "1h")
	await(t, "its jobs are there", func() (bool, any) { jobs := w.tortureJobs(t); return len(jobs) == 5, jobs })
	p.signal(t, syscall.SIGINT)
	if code, said := p.verdict(t); code != 2 || !strings.Contains(said, "not judged: it was stopped before its end") {
		t.Errorf("after SIGINT it exits with %d, and says:\n%s", code, said)
	}
	left, err := os.ReadDir(effects)
	if jobs := w.tortureJobs(t); len(jobs) > 0 || len(left) > 0 || err != nil {
		t.Errorf("left behind: %v, %v, %v", jobs, left, err)
	}
}

// A torture that finds nothing protects nothing. A process that seems to have been
// started twice, and a run that somebody cancels, are found, and the commands that
// it names show them.
func TestTortureBites(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "--slots", "50")
	effects, record := t.TempDir(), filepath.Join(t.TempDir(), "record.json")
	p := torture(t, t.TempDir(), "--server", w.api, "--for", "15s", "--settle", "20m", "--effects", effects, "--record", record)
	file, line := effectFile(t, effects)
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(line); err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	twice := strings.Fields(line)[1]
	var cancelled string
	await(t, "a run is cancelled", func() (bool, any) {
		resp, err := w.runs.ListRuns(t.Context(), &schedv1.ListRunsRequest{Filter: "namespace=torture,phase=PHASE_RUNNING"})
		for _, r := range resp.GetRuns() {
			if !strings.HasSuffix(r.GetJob(), "-long") {
				continue // it may be over by then
			}
			if _, err = w.runs.CancelRun(t.Context(), &schedv1.CancelRunRequest{Id: r.GetId(), Note: "to see whether it is noticed"}); err == nil {
				cancelled = r.GetId()
				return true, r
			}
		}
		return false, err
	})
	code, said := p.verdict(t)
	for _, want := range []string{
		"BROKEN: an attempt is started at most once", "run " + twice, "its process wrote down its begin 2 times",
		"BROKEN: a run succeeds exactly once", "run " + cancelled, "it has ended as CANCELLED",
		"promises were broken, in ",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not tell of %q", want)
		}
	}
	if code != 1 {
		t.Errorf("it exits with %d", code)
	}
	shown := ""
	for line := range strings.Lines(said) {
		if command, ok := strings.CutPrefix(line, "  see: "); ok {
			shown += shell(t, command)
		}
	}
	if !strings.Contains(shown, twice) || !strings.Contains(shown, cancelled) || !strings.Contains(readFile(t, record), cancelled) {
		t.Errorf("what it names does not show %s and %s: %s", twice, cancelled, shown)
	}
	if jobs := w.tortureJobs(t); len(jobs) != 5 {
		t.Errorf("the jobs are to be left, to be looked at: %v", jobs)
	}
	if t.Failed() {
		t.Log(said)
	}
}

// shell runs a command as a user would who has grpcurl.
func shell(t *testing.T, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Env = append(clean(os.Environ()), "PATH="+os.Getenv("E2E_BIN")+":"+os.Getenv("PATH"))
	text, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", command, err)
	}
	return string(text)
}

// A cluster that can't be reached, or has no worker, can't be judged.
func TestTortureOfNobody(t *testing.T) {
	t.Parallel()
	w := newSilentWorld(t)
	w.start(t)
	p := torture(t, t.TempDir(), "--server", w.api)
	if code, said := p.verdict(t); code != 2 || !strings.Contains(said, "0 workers online") {
		t.Errorf("without a worker it exits with %d, and says %s", code, said)
	}
	p = torture(t, t.TempDir(), "--server", freeAddr(t))
	if code, said := p.verdict(t); code != 2 || !strings.Contains(said, "not judged: look at the cluster") {
		t.Errorf("without a cluster it exits with %d, and says %s", code, said)
	}
}

// Whoever names the process of another cluster, which has the same node id, the same
// name of a worker and the same programs, does it no harm.
func TestTortureOfTheWrongCluster(t *testing.T) {
	t.Parallel()
	staging, production := newWorld(t), newWorld(t)
	runner := production.worker.runner(t)
	for _, test := range []struct {
		name, want string
		pid        int
	}{
		{"p1", "the process that --pid gives for the primary p1 is of the cluster ", production.cmd.Process.Pid},
		{"w1", "the process that --pid gives for the worker w1 is of the worker ", production.worker.cmd.Process.Pid},
		{"w1", "the process that --pid gives for the runner w1 is of the worker ", runner},
	} {
		file := filepath.Join(t.TempDir(), "pid")
		if err := os.WriteFile(file, fmt.Appendln(nil, test.pid), 0o600); err != nil {
			t.Fatal(err)
		}
		code, said := torture(t, t.TempDir(), "--server", staging.api, "--for", "1h", "--pid", test.name+"="+file).verdict(t)
		if code != 2 || !strings.Contains(said, test.want) {
			t.Errorf("it exits with %d, does not say %q, and says:\n%s", code, test.want, said)
		}
	}
	if !production.running() || !production.worker.running() || production.worker.runner(t) != runner {
		t.Error("somebody of the other cluster was harmed")
	}
	if jobs := staging.tortureJobs(t); len(jobs) > 0 {
		t.Errorf("it has made %v", jobs)
	}
}

// What somebody names is killed and halted, and is waited for until somebody has
// started it again; all promises are kept meanwhile.
func TestTortureByProcessID(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "--slots", "50")
	dir := t.TempDir()
	file := func(name string, p *process) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", fmt.Appendln(nil, p.cmd.Process.Pid), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	kills := 0
	code, said := harmed(20*time.Second, func(span string) (int, string) {
		p := torture(t, t.TempDir(), "--server", w.api, "--for", span, "--settle", "20m", "--seed", "1",
			"--pid", "p1="+file("p1", w.process), "--pid", "w1="+file("w1", w.worker.process))
		again := time.NewTicker(look)
		defer again.Stop()
		for kills = 0; p.running(); <-again.C { // as systemd would
			if !w.running() {
				kills++
				w.launch(t)
				file("p1", w.process)
			}
			if !w.worker.running() {
				w.worker.launch(t)
				file("w1", w.worker.process)
			}
		}
		return p.verdict(t)
	})
	if code != 0 || !strings.Contains(said, "NOT LOOKED AT: an attempt is started at most once") || !strings.Contains(said, "the other promises were kept") {
		t.Errorf("it exits with %d, and says:\n%s", code, said)
	}
	if told := strings.Count(said, "kill -9 of the leader p1"); told != kills {
		t.Errorf("the primary was killed %d times, and it tells of %d:\n%s", kills, told, said)
	}
}
