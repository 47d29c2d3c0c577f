package harm

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// spare is how much later than planned a fault is undone by the watchman, if nobody
// did before.
const spare = 2 * time.Second

// during has something done, and undoes it by a command of the shell: after the time
// given, or when ctx is done. A watchman, a process of its own, does so when this one
// is killed before. Undoing twice has to be harmless.
func during(ctx context.Context, span time.Duration, undo string, do func() error) error {
	dismiss, err := post(ctx, span+spare, undo)
	if err != nil {
		return err
	}
	defer dismiss()
	failed := do()
	if failed == nil {
		wait(ctx, span)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), comeback)
	defer cancel()
	// Half of it may have been done when it failed.
	if said, err := exec.CommandContext(ctx, "/bin/sh", "-c", undo).CombinedOutput(); err != nil {
		return errors.Join(failed, fmt.Errorf("undo a fault by %q: %w: %s", undo, err, said))
	}
	return failed
}

// post starts the watchman, in a session of its own, and returns what ends him.
func post(ctx context.Context, after time.Duration, undo string) (dismiss func(), err error) {
	seconds := int(after/time.Second) + 1
	watchman := exec.CommandContext(context.WithoutCancel(ctx), "/bin/sh", "-c", fmt.Sprintf("sleep %d; %s", seconds, undo))
	watchman.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := watchman.Start(); err != nil {
		return nil, fmt.Errorf("start what would undo the fault: %w", err)
	}
	return func() {
		_ = syscall.Kill(-watchman.Process.Pid, syscall.SIGKILL) // with the sleep; it may have ended
		_ = watchman.Wait()                                      // it was killed
	}, nil
}
