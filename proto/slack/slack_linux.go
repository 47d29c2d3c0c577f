package slack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// kept is a variable with which timers stay as they are. A program that is run anew has it:
// where that made no difference it is not tried again. And who looks for a fault with a debugger
// can set it, for this process: those that it starts do not have it.
const kept = "SCHEDD_KEEP_TIMERS"

// Widen gives [Late] to all threads of this process, if its first argument is one of these
// commands, which run for long. It is for a main to call first of all:
// threads have it from whoever makes them, and some are there before main. So the program is
// run once more in the same process, with the same arguments and environment, and then it
// returns. It does so at once where somebody has chosen otherwise (TimerSlackNSec= of systemd;
// what Linux gives anyway can't be told from a choice), or who started this process has widened
// it. An error says why timers are as they were; nothing else is the worse for it.
func Widen(commands ...string) error {
	_, keep := os.LookupEnv(kept)
	if err := os.Unsetenv(kept); err != nil {
		return err
	}
	if keep || len(os.Args) < 2 || !slices.Contains(commands, os.Args[1]) {
		return nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if own() != usual {
		return nil
	}
	program, err := self()
	if err != nil {
		return fmt.Errorf("find this program, to run it with timers that may be late: %w", err)
	}
	if err := set(Late); err != nil {
		return err
	}
	err = syscall.Exec(program, os.Args, append(os.Environ(), kept+"=1"))
	return errors.Join(fmt.Errorf("run %s with timers that may be late: %w", program, err), set(usual))
}

// self is the path of this program, by the name that it was called by if that leads to it: the
// process would else be listed by another one, where that is a link.
func self() (string, error) {
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	here, err := os.Stat(program)
	if err != nil {
		return "", err
	}
	named := []string{os.Args[0]}
	if !strings.Contains(os.Args[0], "/") {
		named = nil
		for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
			named = append(named, filepath.Join(dir, os.Args[0]))
		}
	}
	for _, name := range named {
		if there, err := os.Stat(name); err == nil && os.SameFile(here, there) {
			return name, nil
		}
	}
	return program, nil
}

// Usual calls f on a thread whose timers are late by no more than those of any other program,
// so that what f starts has such, too. Only [Late] is taken from it: what somebody else has
// chosen, unless it is the same, is for those as well.
func Usual(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if own() == Late && set(usual) == nil {
		defer func() { _ = set(Late) }() // it was possible a moment ago
	}
	f()
}

// own is by how much timers of this thread may be late.
func own() time.Duration {
	ns, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return 0
	}
	return time.Duration(ns)
}

// set sets by how much timers of this thread, and of those that it makes, may be late.
func set(late time.Duration) error {
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(late), 0, 0, 0); err != nil {
		return fmt.Errorf("let timers be late by %v: %w", late, err)
	}
	return nil
}
