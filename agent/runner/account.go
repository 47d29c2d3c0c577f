//go:build unix

package runner

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/schedd/schedd/agent/runner/cgroup"
)

// account puts together how it ended.
func (p *process) account(why cause, known kin, used cgroup.Usage, now time.Time) Exit {
	e := Exit{
		TimedOut: why == timedOut, Killed: why == killed, LeaseExpired: why == leaseExpired,
		Leftover: p.leftover,
		CPUTime:  cpuTime(p.end.usage) + known.cpu,
		MaxRSS:   max(p.ownRSS(), known.rss),
		Started:  p.started,
		Finished: now,
	}
	if used.CPU > 0 {
		e.CPUTime = used.CPU
	}
	if used.Memory > 0 {
		e.MaxRSS = used.Memory
	}
	switch st := p.end.status; {
	case st.Signaled():
		e.Code = 128 + int(st.Signal())
		e.Signal = signalName(st.Signal())
	default:
		e.Code = st.ExitStatus()
	}
	e.Reason = p.reason(e, why, used)
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

func (p *process) reason(e Exit, why cause, used cgroup.Usage) string {
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
	case used.OOMKills > 0: // said below
	case e.Signal == "SIGKILL" && p.hasMemory():
		say = append(say, "ended by SIGKILL, which neither the worker sent nor the kernel for want of memory")
	case e.Signal == "SIGKILL":
		say = append(say, "ended by SIGKILL, which the worker did not send: the kernel does when memory runs out")
	case e.Signal != "":
		say = append(say, "ended by "+e.Signal+dumped(p.end.status))
	}
	say = append(say, met(p.limits, used)...)
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
		say = append(say, processes(n)+" could not be ended and may still run: the runner has no permission to signal a program that runs as another user")
	}
	return strings.Join(say, "; ")
}

// hasMemory reports whether it would be known if memory had run out.
func (p *process) hasMemory() bool { return p.group != nil && p.local.keeps.Memory == MeansCgroupV2 }

// met says which limits an attempt met. How many processes were ended it does not: the
// kernel counts the one that it began with twice.
func met(l Limits, used cgroup.Usage) (say []string) {
	switch {
	case used.OOMKills == 0:
	case used.OverLimit:
		say = append(say, "ended by the kernel: the job was at its memory limit of "+bytesOf(l.Memory))
	default:
		say = append(say, "processes were ended by the kernel: the host, or what the worker may use of it, ran out of memory")
	}
	if n := used.PIDsRefused; n > 0 {
		say = append(say, fmt.Sprintf("could not start another process or thread, %s: its limit is %d", times(n), l.PIDs))
	}
	return say
}

func times(n int64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// bytesOf shows a size in the largest unit that it is a whole number of.
func bytesOf(n int64) string {
	for _, unit := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n%unit.size == 0 {
			return fmt.Sprintf("%d %s", n/unit.size, unit.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
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
