//go:build unix

package runner

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// account puts together how it ended.
func (p *process) account(why cause, known kin, now time.Time) Exit {
	e := Exit{
		TimedOut: why == timedOut, Killed: why == killed, LeaseExpired: why == leaseExpired,
		Leftover: p.leftover,
		CPUTime:  cpuTime(p.end.usage) + known.cpu,
		MaxRSS:   max(p.ownRSS(), known.rss),
		Started:  p.started,
		Finished: now,
	}
	switch st := p.end.status; {
	case st.Signaled():
		e.Code = 128 + int(st.Signal())
		e.Signal = signalName(st.Signal())
	default:
		e.Code = st.ExitStatus()
	}
	e.Reason = p.reason(e, why)
	return e
}

// ownRSS is the peak of the main process and those it waited for. What the
// kernel reports is at least what this process had when it forked, so a number
// that isn't larger says nothing.
func (p *process) ownRSS() int64 {
	var self syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &self) != nil || p.end.usage.Maxrss <= self.Maxrss {
		return p.peak
	}
	return maxRSS(p.end.usage)
}

func (p *process) reason(e Exit, why cause) string {
	var say []string
	switch {
	case p.end.err != nil:
		say = append(say, fmt.Sprintf("its exit status was lost (%v)", p.end.err))
	case why == timedOut:
		say = append(say, fmt.Sprintf("timed out after %v, %s", p.timeout, p.howEnded()))
	case why == killed:
		say = append(say, "killed on request, "+p.howEnded())
	case why == leaseExpired:
		say = append(say, "its lease expired, "+p.howEnded())
	case e.Signal == "SIGKILL":
		say = append(say, "ended by SIGKILL, which the worker did not send: the kernel does when memory runs out")
	case e.Signal != "":
		say = append(say, "ended by "+e.Signal+dumped(p.end.status))
	}
	if n := p.leftover; n > 0 {
		say = append(say, fmt.Sprintf("%s outlived the main process and %s ended", processes(n), were(n)))
	}
	n := 0
	for _, s := range p.sent {
		if s == refused {
			n++
		}
	}
	if n > 0 {
		say = append(say, processes(n)+" could not be ended: the agent has no permission to signal a program that runs as another user")
	}
	return strings.Join(say, "; ")
}

// howEnded says which signals it took.
func (p *process) howEnded() string {
	switch {
	case p.hard.IsZero():
		return "ended after SIGTERM"
	case p.soft:
		return "did not end after SIGTERM and was ended with SIGKILL"
	}
	return "ended with SIGKILL"
}

func processes(n int) string {
	if n == 1 {
		return "1 process"
	}
	return fmt.Sprintf("%d processes", n)
}

func were(n int) string {
	if n == 1 {
		return "was"
	}
	return "were"
}

func dumped(st syscall.WaitStatus) string {
	if st.CoreDump() {
		return " (core dumped)"
	}
	return ""
}

func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(s)) // real-time signals have no name
}

func cpuTime(u syscall.Rusage) time.Duration {
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
