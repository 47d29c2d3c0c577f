package runner

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/schedd/schedd/agent/runner/cgroup"
)

const line = "41 (%s) S 7 41 39 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 10 11 94000 13 14 15\n"

// The name is the process's to choose, and it may choose it to mislead.
func TestParseStat(t *testing.T) {
	want := stat{ref: ref{41, 4711}, ppid: 7, session: 39, state: 'S', code: 94000}
	for _, name := range []string{"sh", "", "a b", "x) R 1 1 1 (", "\n", ")))"} {
		got, err := parseStat(fmt.Appendf(nil, line, name))
		if err != nil || got != want {
			t.Errorf("name %q: %+v, %v", name, got, err)
		}
	}
	self, err := readStat(os.Getpid())
	if err != nil || self.pid != os.Getpid() || self.ppid != os.Getppid() || self.start == 0 || self.ended() || self.inExec() {
		t.Errorf("this process: %+v, %v", self, err)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add(fmt.Appendf(nil, line, "sh"))
	f.Add(fmt.Appendf(nil, line, ") ("))
	f.Add([]byte("1 (x) S"))
	f.Add([]byte(")("))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStat(b); err != nil && s != (stat{}) {
			t.Errorf("both %+v and %v", s, err)
		}
	})
}

func TestPeakRSS(t *testing.T) {
	if got := peakRSS(os.Getpid()); got < 1<<20 || got > 1<<40 {
		t.Errorf("this process has %d bytes", got)
	}
	if got := peakRSS(-1); got != 0 {
		t.Errorf("a process that isn't has %d bytes", got)
	}
}

// Whatever the processes of a host, a tree is all that descends from its roots,
// and never this process.
func TestDescendants(t *testing.T) {
	const self = 1
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 30).Draw(t, "processes")
		parent := map[int]int{}
		var all []stat
		for pid := 2; pid <= n+1; pid++ {
			// Parents may have higher pids: pids wrap around.
			parent[pid] = rapid.IntRange(1, n+1).Draw(t, "parent")
			state := rapid.SampledFrom([]byte("SRZ")).Draw(t, "state")
			all = append(all, stat{ref: ref{pid, uint64(pid)}, ppid: parent[pid], state: state})
		}
		all = append(all, stat{ref: ref{self, 1}, ppid: n, state: 'R'})
		roots := map[int]bool{}
		for _, pid := range rapid.SliceOfN(rapid.IntRange(2, n+1), 0, 3).Draw(t, "roots") {
			roots[pid] = true
		}

		var want []int
		for _, s := range all {
			if s.pid == self || !roots[s.pid] && s.ended() {
				continue
			}
			for at, steps := s.pid, 0; at != self && steps <= n; at, steps = parent[at], steps+1 {
				if roots[at] {
					want = append(want, s.pid)
					break
				}
			}
		}
		var got []int
		for _, r := range descendants(all, roots, self) {
			got = append(got, r.pid)
		}
		slices.Sort(want)
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("roots %v of %+v: %s", roots, all, d)
		}
	})
}

func TestShebang(t *testing.T) {
	for _, tc := range []struct {
		script string
		want   []string
	}{
		{"echo", nil},
		{"#! \necho", nil},
		{" #!/bin/sh", nil},
		{"#!/bin/sh", []string{"/bin/sh"}},
		{"#!/bin/sh\n-x", []string{"/bin/sh"}},
		{"#!\t/usr/bin/env  python3 -u \nx", []string{"/usr/bin/env", "python3 -u"}},
		{"#!/bin/sh\r\n", []string{"/bin/sh\r"}},
		{"#!/bin/sh\x00x\n", []string{"/bin/sh"}},
	} {
		if d := cmp.Diff(tc.want, shebang(tc.script)); d != "" {
			t.Errorf("%q: %s", tc.script, d)
		}
	}
}

func TestScriptPrefix(t *testing.T) {
	for id, want := range map[string]string{
		"run/1":       "schedd-script-run-1-",
		"../../etc/x": "schedd-script-..-..-etc-x-",
		"ä*?\x00":     "schedd-script------",
	} {
		if got := scriptPrefix(id); got != want {
			t.Errorf("%q: %q, want %q", id, got, want)
		}
	}
}

// What the kernel counted is told in words, and what it did not is not.
func TestLimitsInWords(t *testing.T) {
	l := Limits{Memory: 3 << 29, PIDs: 7}
	for _, test := range []struct {
		used cgroup.Usage
		want []string
	}{
		{cgroup.Usage{}, nil},
		{cgroup.Usage{OOMKills: 3, OverLimit: true}, []string{"ended by the kernel: the job was at its memory limit of 1536 MiB"}},
		{cgroup.Usage{OOMKills: 1}, []string{"processes were ended by the kernel: the host, or what the worker may use of it, ran out of memory"}},
		{cgroup.Usage{PIDsRefused: 1}, []string{"could not start another process or thread, once: its limit is 7"}},
		{cgroup.Usage{PIDsRefused: 2, CPU: 1, Memory: 1}, []string{"could not start another process or thread, 2 times: its limit is 7"}},
	} {
		if d := cmp.Diff(test.want, met(l, test.used)); d != "" {
			t.Errorf("%+v: %s", test.used, d)
		}
	}
	for n, want := range map[int64]string{1 << 10: "1 KiB", 5 << 20: "5 MiB", 1 << 40: "1024 GiB", 1025: "1025 bytes"} {
		if got := bytesOf(n); got != want {
			t.Errorf("%d is shown as %q, want %q", n, got, want)
		}
	}
}
