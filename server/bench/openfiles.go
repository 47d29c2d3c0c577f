package bench

import (
	"fmt"
	"syscall"
)

// spareFiles is how many open files this process has besides what it is asked for.
const spareFiles = 500

// openFiles sees to it that this process may have so many files open. Programs that it
// starts have the limit that it was started with.
func openFiles(n int) error {
	need := uint64(n + spareFiles)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("ask how many files may be open: %w", err)
	}
	if limit.Cur >= need {
		return nil
	}
	raised := syscall.Rlimit{Cur: need, Max: max(limit.Max, need)}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
		return fmt.Errorf("%d open files are needed, and the limit is %d, at most %d (%w): raise it, as with `ulimit -Hn %d`, or run this as root", need, limit.Cur, limit.Max, err, need)
	}
	return nil
}
