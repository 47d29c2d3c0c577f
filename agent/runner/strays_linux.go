package runner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// strayPatience is how long EndStrays waits for what it has killed to be gone.
const strayPatience = 5 * time.Second

// EndStrays finds what an earlier life of the agent left of an attempt, by the
// SCHEDD_RUN_ID, SCHEDD_ATTEMPT and SCHEDD_WORKER that env has and theirs too,
// kills it and all its descendants with SIGKILL, and removes what is left of its
// script. It returns
// how many processes it killed, after they are gone. It fails with ErrRunning
// when this runner is running the attempt, and when it may not kill a process
// or can't see the end of it within 5 s.
//
// It reads all of /proc, and does not see processes of other users unless it is
// root, nor those that have thrown their environment away.
func (l *Local) EndStrays(id string, env []string) (n int, err error) {
	if home.running(id) {
		return 0, fmt.Errorf("ending strays of attempt %q: %w", id, ErrRunning)
	}
	if marksOf(env) == nil {
		return 0, fmt.Errorf("ending strays of attempt %q: the variables that its processes are recognised by are not known", id)
	}
	gone := map[ref]bool{}
	giveUp := time.NewTimer(strayPatience)
	defer giveUp.Stop()
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for quiet := 0; ; {
		strays, err := straysOf(marksOf(env))
		if err != nil {
			return len(gone), fmt.Errorf("ending strays of attempt %q: %w", id, err)
		}
		if quiet++; len(strays) > 0 {
			quiet = 0
		}
		if quiet == 2 { // once isn't enough: who was just in exec showed no environment
			return len(gone), l.removeScripts(id)
		}
		for _, r := range strays {
			switch err := r.signal(syscall.SIGKILL); {
			case err == nil:
				gone[r] = true
			case errors.Is(err, fs.ErrPermission):
				return len(gone), fmt.Errorf("ending process %d of attempt %q: %w", r.pid, id, err)
			} // else it has ended by itself
		}
		select {
		case <-again.C:
		case <-giveUp.C:
			return len(gone), fmt.Errorf("ending strays of attempt %q: %s still there after %v of SIGKILL", id, processes(len(strays)), strayPatience)
		}
	}
}

// straysOf are the living processes with these marks, and all below them.
func straysOf(marks []string) ([]ref, error) {
	all, err := everybody()
	if err != nil {
		return nil, err
	}
	roots := map[int]bool{}
	self := os.Getpid()
	for _, s := range all {
		if s.pid != self && !s.ended() && environ(s.pid).bears(marks) {
			roots[s.pid] = true
		}
	}
	return descendants(all, roots, self), nil
}
