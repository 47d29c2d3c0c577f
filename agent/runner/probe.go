//go:build unix

package runner

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	// probeWithin is how long a probe may take.
	probeWithin = 10 * time.Second
	// probeScript is how long the script is that a probe writes, in bytes: no less than
	// that of any job.
	probeScript = 256 << 10
)

// Probe implements Runner. Of those that don't come back there is one at most.
func (l *Local) Probe() error {
	late, turn := time.NewTimer(l.patience), l.probing
	defer late.Stop()
	hung := fmt.Errorf("the file system of the runner's directory %q has not answered within %v", l.temp, l.patience)
	select {
	case turn <- struct{}{}:
	case <-late.C:
		return hung
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-turn }()
		done <- l.probe()
	}()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return hung
	}
}

// probe takes the steps of a start that are this worker's own.
func (l *Local) probe() error {
	if _, err := l.policy(); err != nil {
		return err
	}
	script, err := l.writeScript(Spec{ID: "probe", Script: strings.Repeat("#", probeScript)}, nil)
	if script != "" {
		err = errors.Join(err, os.Remove(script))
	}
	if err != nil {
		return err
	}
	stdin, err := l.openStdin([]byte("probe"))
	if err != nil {
		return fmt.Errorf("keep what a process is to read: %w", err)
	}
	return errors.Join(l.tryFork(), syscall.Close(stdin))
}
