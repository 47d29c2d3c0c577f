//go:build e2e

package e2e_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

const (
	leastLog = 64 << 10 // the lowest log limit
	modest   = 300 << 20
)

// marker is the line between the head and the tail of a log over its limit.
func marker(dropped int64) string {
	return fmt.Sprintf("\n[schedd: %d bytes left out here: over the log limit of %d bytes]\n", dropped, leastLog)
}

// Output without end fills neither the worker's disk nor the primary's; the job
// can be cancelled all the while, and what is kept is the beginning and the end.
func TestOutputWithoutEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	j := w.exec("yes", "yes", "0123456789abcde")
	j.Policy.LogLimitBytes = leastLog
	w.put(t, j)
	run := w.run(t, "yes")
	await(t, "what was written is given back", func() (bool, any) {
		_, size, taken := w.worker.spool(t)
		if taken > 16<<30 {
			t.Fatalf("a log with a limit of %d bytes takes %d of the disk", leastLog, taken)
		}
		return size > 256<<20 && taken < size/2, []int64{size, taken}
	})
	resp, err := w.runs.CancelRun(t.Context(), &schedv1.CancelRunRequest{Id: run.GetId(), Note: "that will do"})
	if err != nil || resp.GetRun().GetCancelRequestedTime() == nil {
		t.Fatalf("cancel: %v, %v", resp, err)
	}
	run = w.awaitEnd(t, run)
	phase(t, run, schedv1.Phase_PHASE_CANCELLED)
	if !strings.Contains(run.GetReason()+last(run).GetReason(), "that will do") {
		t.Errorf("the reason is %q, want the note", run.GetReason())
	}

	log := w.readLog(t, run.GetId())
	dropped := last(run).GetLogDroppedBytes()
	head, rest, cut := bytes.Cut(log, []byte(marker(dropped)))
	if !cut || len(head) != leastLog/2 || len(rest) != leastLog/2 || dropped < 200<<20 {
		t.Errorf("%d bytes, a line on %d more, %d bytes: want half of %d at each end", len(head), dropped, len(rest), leastLog)
	}
	line := []byte("0123456789abcde\n")
	sameBytes(t, "the head", head, bytes.Repeat(line, leastLog/2/len(line)))
	off := int((int64(len(head)) + dropped) % int64(len(line)))
	sameBytes(t, "the tail", rest, bytes.Repeat(line, leastLog)[off:off+len(rest)])
	w.worker.emptied(t)
	modestMemory(t, w)
}

// A line of a GiB is a log like any other: bounded, and in nobody's memory.
func TestLineOfOneGiB(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	j := w.script("line", `head -c 1073741824 /dev/zero | tr '\0' x`)
	j.Policy.LogLimitBytes = leastLog
	run := w.putAndRun(t, j)
	phase(t, run, schedv1.Phase_PHASE_SUCCEEDED)
	const dropped = 1<<30 - leastLog
	if got := last(run).GetLogDroppedBytes(); got != dropped {
		t.Errorf("%d bytes were left out, want %d", got, dropped)
	}
	half := strings.Repeat("x", leastLog/2)
	sameBytes(t, "the log", w.readLog(t, run.GetId()), []byte(half+marker(dropped)+half))
	modestMemory(t, w)
}

// modestMemory looks at the most memory that the programs ever had.
func modestMemory(t *testing.T, w *world) {
	t.Helper()
	for _, p := range []*process{w.process, w.worker.process} {
		status := readFile(t, fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
		_, after, _ := strings.Cut(status, "VmHWM:")
		text, _, _ := strings.Cut(strings.TrimSpace(after), " kB")
		kib, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatalf("%s: no VmHWM in %q", p.name, status)
		}
		if kib<<10 > modest {
			t.Errorf("%s has had %d MiB of memory, want less than %d", p.name, kib>>10, modest>>20)
		}
	}
}

// A log is bytes: what a process writes comes back as it was, whether or not it
// is text.
func TestOutputIsBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	noise := make([]byte, 3<<20+17)
	src := rand.NewChaCha8([32]byte([]byte("the same noise in every test run")))
	_, _ = src.Read(noise) // never fails
	file := filepath.Join(t.TempDir(), "noise")
	if err := os.WriteFile(file, noise, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		body string
		want []byte
	}{
		"noise":   {`cat ` + file, noise},
		"nul":     {`printf 'a\000b\000\000'`, []byte("a\x00b\x00\x00")},
		"latin1":  {`printf 'caf\351 \377\376\n' >&2`, []byte("caf\xe9 \xff\xfe\n")},
		"half":    {`printf '\342\202'`, []byte("\xe2\x82")}, // of a euro sign
		"no-line": {`printf x`, []byte("x")},
		"nothing": {`:`, nil},
		"both":    {`echo out; echo err >&2; echo out`, []byte("out\nerr\nout\n")},
	} {
		run := w.putAndRun(t, w.script(name, test.body))
		phase(t, run, schedv1.Phase_PHASE_SUCCEEDED)
		sameBytes(t, name, w.readLog(t, run.GetId()), test.want)
		if got := last(run).GetLogBytes(); got != int64(len(test.want)) {
			t.Errorf("%s: the run says that its log has %d bytes, want %d", name, got, len(test.want))
		}
	}
}

// What a process reads from its standard input is what the job says, up to
// 128 KiB.
func TestStdin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const most = 128 << 10
	for _, size := range []int{0, 1, most} {
		j := w.exec("cat", "cat")
		j.Task.Stdin = strings.Repeat("ä\n\"'$()", most)[:size-size%2] // "ä" is two bytes
		for len(j.Task.Stdin) < size {
			j.Task.Stdin += "."
		}
		if !validText(j.Task.Stdin) {
			j.Task.Stdin = strings.Repeat(".", size)
		}
		run := w.putAndRun(t, j)
		phase(t, run, schedv1.Phase_PHASE_SUCCEEDED)
		sameBytes(t, fmt.Sprint(size, " bytes"), w.readLog(t, run.GetId()), []byte(j.Task.Stdin))
	}
	j := w.exec("cat", "cat")
	j.Task.Stdin = strings.Repeat(".", most+1)
	_, err := w.jobs.PutJob(t.Context(), &schedv1.PutJobRequest{Job: j})
	refused(t, err, map[string]string{"job.task.stdin": "131072"})
}

// A process that leaves children behind is not done before they are: whatever
// session, parent or environment they have given themselves.
func TestChildrenAreNotLeftBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	j := w.script("family", `#!/bin/bash
		sleep $AGE &
		nohup sleep $AGE &
		setsid sleep $AGE &
		(setsid bash -c 'sleep $AGE & disown; sleep $AGE & exit' &)
		env -i setsid bash -c '(exec -a "$0" sleep '$AGE') & exit' "$E2E_MARK" &
		env -i setsid setsid bash -c 'exec sleep '$AGE &
		(trap "" TERM HUP INT; sleep $AGE) &
		until [ -e "$E2E_FILE.go" ]; do sleep 0.1; done
		echo all there`)
	j.Policy.KillGrace = seconds(2)
	age := fmt.Sprintf("86400.%d", rand.Uint32()) // known from the sleep of others
	j.Task.Env["AGE"] = age
	w.put(t, j)
	run := w.awaitRunning(t, w.run(t, "family"))
	await(t, "all are there", func() (bool, any) {
		asleep := named(t, "sleep", age)
		return len(asleep) == 8, asleep
	})
	if err := os.WriteFile(w.file+".go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run = w.awaitEnd(t, run)
	phase(t, run, schedv1.Phase_PHASE_SUCCEEDED)
	for _, pid := range append(w.strays(t), named(t, "sleep", age)...) {
		t.Errorf("process %d is left: %s", pid, cmdline(pid))
	}
	if got := string(w.readLog(t, run.GetId())); !strings.HasSuffix(got, "all there\n") {
		t.Errorf("the log is %q", got)
	}
}

// named are the processes of a program with a word among its arguments.
func named(t *testing.T, program, word string) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		comm, _ := os.ReadFile(path) // it may have ended
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && string(comm) == program+"\n" && strings.Contains(cmdline(pid), word) {
			pids = append(pids, pid)
		}
	}
	return pids
}
