package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process has used, as /proc tells it.
type Usage struct {
	Resident, Peak int64         // bytes of memory, now and at most
	Files          int64         // of what is resident: pages of files, the program's own among them
	Processor      time.Duration // of all its threads
	Children       time.Duration // of processes that it started and that have ended
}

// UsageOf reads that of a process.
func UsageOf(pid int) (Usage, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return Usage{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return Usage{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	u, err := parseUsage(string(status), string(stat))
	if err != nil {
		return u, fmt.Errorf("look at process %d: %w", pid, err)
	}
	return u, nil
}

// tick is the unit of times in /proc, on all systems that Go knows.
const tick = 10 * time.Millisecond

func parseUsage(status, stat string) (u Usage, err error) {
	for line := range strings.Lines(status) {
		name, rest, _ := strings.Cut(line, ":")
		var to *int64
		switch name {
		case "VmRSS":
			to = &u.Resident
		case "VmHWM":
			to = &u.Peak
		case "RssFile":
			to = &u.Files
		default:
			continue
		}
		kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			return u, fmt.Errorf("read %q: %w", line, err)
		}
		*to = kilobytes << 10
	}
	const first = 11 // of user and system time, of its own and of its children, after the name
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < first+4 {
		return u, fmt.Errorf("read %q: it has too few fields", stat)
	}
	var times [4]time.Duration
	for i, field := range fields[first : first+4] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return u, fmt.Errorf("read %q: %w", stat, err)
		}
		times[i] = time.Duration(ticks) * tick
	}
	u.Processor, u.Children = times[0]+times[1], times[2]+times[3]
	return u, nil
}

// Megabytes is a size as a figure.
func Megabytes(bytes int64) float64 { return float64(bytes) / 1e6 }
