package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// In a container the agent is process 1. Then it has the jobs' processes itself, since all
// ends with it, and so would a runner.
func TestProcessOneIsTheRunner(t *testing.T) {
	for _, first := range []bool{true, false} {
		cmd := exec.Command(os.Args[0], "run", "--help")
		cmd.Env = append(os.Environ(), actAsProgram+"=1")
		if first {
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
		}
		help, err := cmd.Output()
		if errors.Is(err, syscall.EPERM) {
			t.Skipf("be process 1, which only root can: %v", err)
		}
		_, flag, there := strings.Cut(string(help), "\n  --in-process ")
		flag, _, _ = strings.Cut(flag, "\n")
		if is := strings.HasSuffix(flag, "(default true)"); err != nil || !there || is != first {
			t.Errorf("as process 1: %v; the help says %q, %v", first, flag, err)
		}
	}
}
