package runner

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel tells nobody by signal that a child has ended, and leaves it to be reaped.
func TestNoSignalForEnds(t *testing.T) {
	New(Options{TempDir: t.TempDir()})
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []string{"SigCgt", "SigIgn"} {
		_, rest, _ := strings.Cut(string(status), set+":")
		line, _, _ := strings.Cut(rest, "\n")
		bits, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
		if err != nil {
			t.Fatalf("read %s of /proc/self/status: %v", set, err)
		}
		if bits&(1<<(unix.SIGCHLD-1)) != 0 {
			t.Errorf("SIGCHLD is in %s: %x", set, bits)
		}
	}
}
