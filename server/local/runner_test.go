package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// processes are some by their ids: their command lines and parents.
type processes map[int]struct {
	line   string
	parent int
}

// told is a directory such as /proc, that tells of processes.
func told(t *testing.T, all processes) string {
	t.Helper()
	proc := t.TempDir()
	for pid, p := range all {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		status := fmt.Sprintf("Name:\tschedagent\nPid:\t%d\nPPid:\t%d\nTracerPid:\t0\n", pid, p.parent)
		line := strings.ReplaceAll(p.line, " ", "\x00") + "\x00"
		if err := errors.Join(os.Mkdir(dir, 0o700),
			os.WriteFile(filepath.Join(dir, "status"), []byte(status), 0o600),
			os.WriteFile(filepath.Join(dir, "cmdline"), []byte(line), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return proc
}

// The runner is found among what looks like it: processes that it has forked and that have yet
// to begin a job's program, which may come first, and runners of other workers.
func TestRunnerAmongItsChildren(t *testing.T) {
	const ours, others = "schedagent runner --data-dir=/d/worker-1", "schedagent runner --data-dir=/d/worker-10"
	for name, test := range map[string]struct {
		all  processes
		want int
	}{
		"alone":                  {processes{1: {"init", 0}, 9999: {ours, 1}}, 9999},
		"a child comes first":    {processes{1: {"init", 0}, 9999: {ours, 1}, 10000: {ours, 9999}}, 9999},
		"of several children":    {processes{500: {ours, 70}, 70: {ours, 2}, 600: {ours, 70}, 2: {"schedagent run", 1}}, 70},
		"a child runs a program": {processes{9999: {ours, 1}, 10000: {"sleep 1000", 9999}}, 9999},
		"of another worker":      {processes{9999: {ours, 1}, 1000: {others, 1}}, 9999},
		"none":                   {processes{1: {"init", 0}, 1000: {others, 1}, 7: {"schedagent", 1}, 8: {"", 1}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Runner{dir: "/d/worker-1"}
			got, err := r.find(told(t, test.all))
			if got != test.want || errors.Is(err, errNoRunner) != (test.want == 0) {
				t.Errorf("found %d, %v; want %d", got, err, test.want)
			}
		})
	}
}
