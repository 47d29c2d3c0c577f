//go:build unix

package runner

import (
	"fmt"
	"os"
	"syscall"
)

// Detached is a program that was started to outlive this process.
type Detached struct {
	pid   int
	ended bool
}

// Detach starts a program in a session of its own: no terminal, and no signal
// that is meant for this process and its group, reaches it. What it writes is
// appended to the file log, which is made if it isn't there. It finds PATH, HOME
// and TZ in its environment and nothing else.
func Detach(argv []string, log string) (*Detached, error) {
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %q: %w", argv[0], err)
	}
	defer func() { _ = out.Close() }() // the program has its own
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	var env []string
	for _, name := range []string{"PATH", "HOME", "TZ"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
		Dir: "/", Env: env,
		Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, fmt.Errorf("start %q: %w", argv[0], err)
	}
	return &Detached{pid: pid}, nil
}

// PID is its process id.
func (d *Detached) PID() int { return d.pid }

// Ended reports whether it has ended, and reaps it then. It may be called again,
// by one goroutine at a time.
func (d *Detached) Ended() bool {
	if !d.ended {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(d.pid, &status, syscall.WNOHANG, nil)
		d.ended = pid == d.pid || err == syscall.ECHILD
	}
	return d.ended
}
