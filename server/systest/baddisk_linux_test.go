package systest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// onTmpfs puts the data of a worker that was not started yet on a file system of its
// own, of so many bytes.
func (k *worker) onTmpfs(size string) {
	k.w.Helper()
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		k.w.Fatal(err)
	}
	if err := unix.Mount("tmpfs", k.dir, "tmpfs", 0, "size="+size); err != nil {
		k.w.Skipf("mount a small tmpfs, which only root can: %v", err)
	}
	dir := k.dir
	k.w.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// fill leaves no room on the disk of a worker, until what it returns is called.
func (k *worker) fill() (empty func()) {
	k.w.Helper()
	name := filepath.Join(k.dir, "somebody-elses")
	f, err := os.Create(name)
	if err != nil {
		k.w.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		k.w.Fatal(err)
	}
	if err := f.Close(); err != nil {
		k.w.Fatal(err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			k.w.Error(err)
		}
	}
}

// The disk of a worker is full. It takes no more runs and says why, to people too; they
// go to another one. What runs on it ends, and is told. When there is room it takes runs
// again.
func TestWorkersDiskFills(t *testing.T) {
	story(t, func(w *world) {
		full := w.newWorker("full", nil, 10)
		full.onTmpfs("2m")
		w.startPrimary()
		full.start()
		w.startWorker("other", map[string]string{"spare": "yes"}, 10)
		w.awaitOnline()
		w.does("long", talker(2*time.Minute, time.Minute))
		w.does("j", talker(5*time.Second, time.Second))
		long := job("long")
		long.Target = &schedv1.Target{Selector: "!spare"}
		overlapAllowed(long)
		w.define(long)
		running := w.run("long")
		w.wait(5 * time.Second)
		empty := full.fill()
		w.define(job("j", every(10*time.Second), overlapAllowed))
		w.wait(time.Minute)
		if k := w.known("full"); !strings.Contains(k.GetTrouble(), "the disk is full") || k.GetPhase() != schedv1.WorkerPhase_WORKER_PHASE_ONLINE {
			t.Errorf("of the worker people learn: %v", k)
		}
		if k := w.known("other"); k.GetTrouble() != "" {
			t.Errorf("of the other one people learn: %v", k)
		}
		tried := 0
		for _, r := range w.runsOf("j") {
			for _, a := range r.GetAttempts() {
				if a.GetWorkerName() == "full" {
					tried++
					if a.GetOutcome() != schedv1.Outcome_OUTCOME_REFUSED {
						t.Errorf("run %s, on the full disk: %v", r.GetId(), a)
					}
				}
			}
		}
		if tried > 1 {
			t.Errorf("%d attempts were given to the worker whose disk is full, after it had said so", tried)
		}
		waiting := w.run("long")
		w.awaitPhase(running.GetId(), 5*time.Minute, phaseSucceeded)
		w.awaitPhase(waiting.GetId(), time.Second, schedv1.Phase_PHASE_PENDING)
		empty()
		w.wait(20 * time.Second)
		if k := w.known("full"); k.GetTrouble() != "" {
			t.Errorf("once there is room, people learn: %v", k)
		}
		w.awaitPhase(waiting.GetId(), 5*time.Minute, phaseSucceeded)
		w.deleteJob("j")
		w.settle(time.Hour)
	})
}

// The disk of the only worker has room and takes no more files. The worker says so all the
// time, not now and then, and a run waits until there can be one.
func TestWorkersDiskTakesNoFiles(t *testing.T) {
	story(t, func(w *world) {
		full := w.newWorker("full", nil, 10)
		full.onTmpfs("8m,nr_inodes=60")
		w.startPrimary()
		full.start()
		w.awaitOnline()
		w.define(job("j"))
		w.awaitPhase(w.run("j").GetId(), time.Minute, phaseSucceeded)
		var names []string
		for n := 0; ; n++ {
			name := filepath.Join(full.dir, fmt.Sprint("somebody-elses-", n))
			if err := os.WriteFile(name, nil, 0o600); err != nil {
				break
			}
			names = append(names, name)
		}
		r := w.run("j")
		w.wait(20 * time.Second)
		for range 20 {
			if told := w.known("full").GetTrouble(); !strings.Contains(told, syscall.ENOSPC.Error()) {
				t.Errorf("people learn %q", told)
			}
			w.wait(time.Minute)
		}
		if is := w.get(r.GetId()); is.GetPhase() != schedv1.Phase_PHASE_PENDING || len(is.GetAttempts()) != 1 || !strings.Contains(is.GetReason(), syscall.ENOSPC.Error()) {
			t.Errorf("the run is %v with %d attempts, because %q", is.GetPhase(), len(is.GetAttempts()), is.GetReason())
		}
		for _, name := range names {
			if err := os.Remove(name); err != nil {
				t.Error(err)
			}
		}
		w.awaitPhase(r.GetId(), time.Minute, phaseSucceeded)
		if told := w.known("full").GetTrouble(); told != "" {
			t.Errorf("once there can be files, people learn %q", told)
		}
		w.settle(time.Hour)
	})
}
