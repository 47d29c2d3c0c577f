package runner

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ref names a process for ever: pids come back, but not with the same start.
type ref struct {
	pid   int
	start uint64 // in clock ticks since boot
}

// stat is a line of /proc.
type stat struct {
	ref
	ppid, session int
	state         byte
	code          uint64 // where the program's code begins: 1 when we may not know
}

// ended reports whether it is only waiting to be reaped.
func (s stat) ended() bool { return s.state == 'Z' || s.state == 'X' }

// inExec reports whether it is between two programs: it has the new one's memory,
// but not yet its environment.
func (s stat) inExec() bool { return s.code == 0 && !s.ended() }

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

// parseStat reads a /proc/PID/stat. The name in it is the process's to choose:
// it may hold spaces, parentheses and line feeds.
func parseStat(b []byte) (stat, error) {
	open, shut := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || shut < open {
		return stat{}, fmt.Errorf("no name in %q", b)
	}
	f := bytes.Fields(b[shut+1:]) // from the third field on, counted from 1
	if len(f) < 24 || len(f[0]) != 1 {
		return stat{}, fmt.Errorf("too few fields in %q", b)
	}
	s := stat{state: f[0][0]}
	var err [5]error
	s.pid, err[0] = strconv.Atoi(string(bytes.TrimSpace(b[:open])))
	s.ppid, err[1] = strconv.Atoi(string(f[1]))
	s.session, err[2] = strconv.Atoi(string(f[3]))
	s.start, err[3] = strconv.ParseUint(string(f[19]), 10, 64)
	s.code, err[4] = strconv.ParseUint(string(f[23]), 10, 64)
	for _, e := range err {
		if e != nil {
			return stat{}, e
		}
	}
	return s, nil
}

// everybody lists all processes of this host that are there from the beginning
// of the call to its end.
func everybody() ([]stat, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var all []stat
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil { // else it has ended meanwhile
			all = append(all, s)
		}
	}
	return all, nil
}

// descendants are the roots that are there, and all below them. Of those whose
// parent isn't this process, zombies are not counted: their parent, or we, will
// reap them.
func descendants(all []stat, roots map[int]bool, self int) []ref {
	below := map[int][]stat{}
	var open []stat
	for _, s := range all {
		if roots[s.pid] {
			open = append(open, s)
		} else if s.pid != self {
			below[s.ppid] = append(below[s.ppid], s)
		}
	}
	var refs []ref
	seen := map[int]bool{}
	for len(open) > 0 {
		s := open[0]
		open = open[1:]
		if seen[s.pid] {
			continue
		}
		seen[s.pid] = true
		if roots[s.pid] || !s.ended() {
			refs = append(refs, s.ref)
		}
		open = append(open, below[s.pid]...)
	}
	return refs
}

// environment is what a process was started with. It is empty for one that we may
// not look into, and for one that is just in exec.
type environment []string

func environ(pid int) environment {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil || len(b) == 0 {
		return nil
	}
	return strings.Split(string(b), "\x00")
}

// bears reports whether all the marks are in it; false when there are none.
func (e environment) bears(marks []string) bool {
	missing := func(m string) bool { return !slices.Contains(e, m) }
	return len(marks) > 0 && !slices.ContainsFunc(marks, missing)
}

// marked reports whether it is that of any attempt.
func (e environment) marked() bool {
	return slices.ContainsFunc(e, func(kv string) bool { return strings.HasPrefix(kv, "SCHEDD_RUN_ID=") })
}

// signal sends sig to this very process, and wakes it if it is stopped. It fails
// with ESRCH when the process has ended.
func (r ref) signal(sig syscall.Signal) error {
	fd, err := unix.PidfdOpen(r.pid, 0)
	if err == unix.ENOSYS {
		fd = -1 // before Linux 5.3: a moment is left in which the pid could change hands
	} else if err != nil {
		return err
	} else {
		defer func() { _ = unix.Close(fd) }()
	}
	if s, err := readStat(r.pid); err != nil || s.start != r.start {
		return syscall.ESRCH
	}
	send := func(sig syscall.Signal) error {
		if fd < 0 {
			return syscall.Kill(r.pid, sig)
		}
		return unix.PidfdSendSignal(fd, sig, nil, 0)
	}
	if err := send(sig); err != nil || sig == syscall.SIGKILL {
		return err
	}
	// It may have ended of the first one, and have been reaped on another attempt's
	// behalf: it was there all the same.
	_ = send(syscall.SIGCONT)
	return nil
}

// peakRSS is the largest resident set so far, in bytes; 0 when it can't be told.
func peakRSS(pid int) int64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "\nVmHWM:")
	var kb int64
	if _, err := fmt.Sscanf(rest, "%d kB", &kb); err != nil {
		return 0
	}
	return kb << 10
}

// maxRSS is the usage's peak in bytes; Linux counts in KiB.
func maxRSS(u syscall.Rusage) int64 { return int64(u.Maxrss) << 10 } //nolint:unconvert // it is an int32 on 32-bit machines
