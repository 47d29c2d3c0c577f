//go:build e2e

package e2e_test

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/schedd/schedd/agent/runner/cgroup/cgrouptest"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// The agent is a user without any rights, the runner is root, and a policy stands
// between them: jobs run as the users that it names, and as nobody else.
func TestAgentIsAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to start programs as other users")
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("needs setpriv, of util-linux:", err)
	}
	w := newSilentWorld(t)
	w.start(t)
	u := newUsers(t)

	runner := start(t, "runner", nil, u.program, "runner", "--data-dir", u.runner, "--agent-user", "daemon", "--policy", u.policy, "--log-level", "debug")
	w.worker = newWorker(t, w.primary, "w1")
	w.worker.dir = u.agent
	await(t, "the agent has found its runner", func() (bool, any) { // which may not be there yet
		if w.worker.process == nil || !w.worker.running() {
			w.worker.process = start(t, "schedagent", nil, setpriv, "--reuid=daemon", "--regid=daemon", "--clear-groups", "--bounding-set=-all", "--",
				u.program, "run", "--data-dir", u.agent, "--runner-dir", u.runner, "--start-runner=false", "--server", w.api, "--name", "w1")
		}
		resp, err := w.workers.ListWorkers(t.Context(), &schedv1.ListWorkersRequest{Filter: "phase=WORKER_PHASE_ONLINE"})
		return err == nil && len(resp.GetWorkers()) == 1, fmt.Sprint(resp, err, tail(runner.log, 10))
	})

	job := w.script("who", "id -un; cat <&0")
	job.Task.User, job.Task.Stdin = "nobody", "stdin"
	r := w.awaitEnd(t, w.putAndRun(t, job))
	phase(t, r, schedv1.Phase_PHASE_SUCCEEDED)
	sameBytes(t, "the log", w.readLog(t, r.GetId()), []byte("nobody\nstdin"))
	for name, user := range map[string]string{"root": "root", "by-default": "", "agent": "daemon"} {
		job := w.script(name, "id -un")
		job.Task.User = user
		r := w.awaitEnd(t, w.putAndRun(t, job))
		phase(t, r, schedv1.Phase_PHASE_FAILED)
		if a := last(r); a.GetOutcome() != schedv1.Outcome_OUTCOME_NOT_STARTED || !strings.Contains(a.GetReason(), "policy does not let jobs run as user") {
			t.Errorf("%s: %v", name, a)
		}
	}
	// Root's runner can be stopped by root, and its agent ends with it.
	if said, err := exec.CommandContext(t.Context(), u.program, "stop", "--data-dir", u.runner).CombinedOutput(); err != nil {
		t.Errorf("stop: %v, %s", err, said)
	}
	for _, p := range []*process{runner, w.worker.process} {
		if code := p.ended(t); code != 0 {
			t.Errorf("%s exits with %d, want 0", p.name, code)
		}
	}
}

// users are the directories of an agent and of a runner that are two users, and the
// program, where both can come to it.
type users struct{ agent, runner, policy, program string }

func newUsers(t *testing.T) users {
	t.Helper()
	top := t.TempDir()
	u := users{filepath.Join(top, "agent"), filepath.Join(top, "runner"), filepath.Join(top, "policy.yaml"), filepath.Join(top, "schedagent")}
	for dir, mode := range map[string]fs.FileMode{filepath.Dir(top): 0o711, top: 0o711} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{u.agent, u.runner} {
		if err := os.Mkdir(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	const daemon = 1
	if err := os.Chown(u.agent, daemon, daemon); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(u.policy, []byte("users: [nobody]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	copied, err := os.OpenFile(u.program, os.O_WRONLY|os.O_CREATE, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(binary("schedagent"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	if _, err := io.Copy(copied, from); err != nil {
		t.Fatal(err)
	}
	if err := copied.Close(); err != nil {
		t.Fatal(err)
	}
	return u
}

// Jobs are in control groups. A runner that is killed leaves them, and the next one
// ends what is in them: also what has neither a parent, a session nor an environment
// by which anybody could tell whose it is.
func TestControlGroupsOutliveNoRunner(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(cgrouptest.Dir(t), "worker")
	t.Cleanup(func() { // when the runner has ended
		if err := syscall.Rmdir(dir); err != nil {
			t.Error(err)
		}
	})
	w := newWorld(t, "--cgroup", dir)
	e := w.worker.online(t, w.primary).GetEnforcement()
	if e.GetTree() != schedv1.Means_MEANS_CGROUP_V2 {
		t.Skip("needs a kernel that starts processes in control groups:", e.GetNote())
	}
	w.put(t, w.script("lost", "(env -i setsid sleep 86400 &); (env -i setsid sleep 86400 &); grep ^0:: /proc/self/cgroup; "+tell+"sleep 86400 & wait"))
	run := w.awaitRunning(t, w.run(t, "lost"))
	w.awaitTold(t, run)
	groups, err := filepath.Glob(filepath.Join(dir, "job-"+run.GetId()+"-*"))
	if err != nil || len(groups) != 1 {
		t.Fatalf("groups of the attempt: %v, %v", groups, err)
	}
	pids, err := os.ReadFile(filepath.Join(groups[0], "cgroup.procs"))
	if n := len(strings.Fields(string(pids))); err != nil || n < 4 {
		t.Errorf("%d processes in the group, want the script and three that sleep; %v", n, err)
	}
	w.worker.killRunner(t)
	run = w.awaitEnd(t, run)
	phase(t, run, schedv1.Phase_PHASE_LOST)
	for word := range strings.FieldsSeq(string(pids)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		if now := cmdline(pid); now != "" { // one that waits to be reaped has none
			t.Errorf("process %d of the attempt is there: %s", pid, now)
		}
	}
	if _, err := os.Stat(groups[0]); err == nil {
		t.Errorf("the group of the attempt is there")
	}
	if log := string(w.readLog(t, run.GetId())); !strings.Contains(log, filepath.Base(groups[0])) {
		t.Errorf("the attempt was in %q, want %s", log, groups[0])
	}
}
