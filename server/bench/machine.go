package bench

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/schedd/schedd/proto/settings"
	"github.com/schedd/schedd/server/bench/report"
)

// program is what runs here, which is what is measured.
func program() report.Program {
	p := report.Program{Version: settings.Version(), Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				p.Commit = s.Value
			case "vcs.modified":
				p.Modified = s.Value == "true"
			}
		}
	}
	return p
}

// machine is this one. What the system does not tell is left out.
func machine(dir string) report.Machine {
	read := func(name string) string {
		text, _ := os.ReadFile(name) // there may be none
		return string(text)
	}
	return report.Machine{
		OS: runtime.GOOS, Arch: runtime.GOARCH, Cores: runtime.NumCPU(),
		Kernel:     strings.TrimSpace(read("/proc/sys/kernel/osrelease")),
		CPU:        field(read("/proc/cpuinfo"), "model name"),
		MemoryMB:   memory(field(read("/proc/meminfo"), "MemTotal")),
		FileSystem: fileSystem(read("/proc/self/mountinfo"), dir),
		Load:       load(read("/proc/loadavg")),
	}
}

// field finds "name : value".
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// memory is "N kB" in megabytes.
func memory(text string) int {
	kilobytes, err := strconv.Atoi(strings.TrimSuffix(text, " kB"))
	if err != nil {
		return 0
	}
	return kilobytes * 1024 / 1e6
}

// load is the first of the averages.
func load(text string) float64 {
	first, _, _ := strings.Cut(text, " ")
	average, _ := strconv.ParseFloat(first, 64) // 0 when it is not told
	return average
}

// fileSystem is the type of that which holds a directory: of the mount whose point is
// the longest one above it.
func fileSystem(mounts, dir string) (kind string) {
	longest := 0
	for line := range strings.Lines(mounts) {
		before, after, ok := strings.Cut(line, " - ")
		fields, kinds := strings.Fields(before), strings.Fields(after)
		const point = 4
		if !ok || len(fields) <= point || len(kinds) == 0 {
			continue
		}
		at := strings.TrimSuffix(fields[point], "/") + "/"
		if strings.HasPrefix(dir+"/", at) && len(at) >= longest {
			longest, kind = len(at), kinds[0]
		}
	}
	return kind
}
