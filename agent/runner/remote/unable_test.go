package remote_test

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
)

// Whose fault it is that something can't be started is told from one process to the other,
// and so is whether it could be again. A runner that is not there starts nothing either.
func TestWhoseFaultItIs(t *testing.T) {
	does := map[string]fakerunner.Behaviour{"a/1": {StartError: syscall.ENOENT}}
	story(t, does, func(h *host) {
		r := h.agent()
		if err := r.Probe(); err != nil {
			t.Errorf("a probe: %v", err)
		}
		if _, err := r.Start(runner.Spec{ID: "a/1"}); err == nil || errors.Is(err, runner.ErrUnable) {
			t.Errorf("the job's fault: %v", err)
		}
		h.present().fake.SetUnable(syscall.EAGAIN)
		if _, err := r.Start(runner.Spec{ID: "b/1"}); !errors.Is(err, runner.ErrUnable) {
			t.Errorf("the worker's fault: %v", err)
		}
		if err := r.Probe(); err == nil || err.Error() != syscall.EAGAIN.Error() {
			t.Errorf("a probe that fails: %v", err)
		}
		h.part(true)
		h.wait(time.Second)
		if _, err := r.Start(runner.Spec{ID: "c/1", Deadline: deadline(time.Minute)}); !errors.Is(err, runner.ErrUnable) {
			t.Errorf("without a runner: %v", err)
		}
		if err := r.Probe(); err == nil {
			t.Error("a probe says that all is well without a runner")
		}
		r.Close()
	})
}
