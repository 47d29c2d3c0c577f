package slack

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// asked is set for a process that is to widen its timers, and to say what became of them.
const asked = "TEST_OF_SLACK"

// unexecutable is its value if the process is to keep itself from being run anew.
const unexecutable = "no"

func TestMain(m *testing.M) {
	if os.Getenv(asked) == "" {
		os.Exit(m.Run())
	}
	if os.Getenv(asked) == unexecutable {
		if err := os.Chmod(os.Args[0], 0o600); err != nil {
			fmt.Println(err)
		}
	}
	if err := Widen("one", "another"); err != nil {
		fmt.Println(err != nil, own())
		os.Exit(0)
	}
	threads, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(strings.TrimSpace(string(comm)), len(os.Args), os.Getenv(kept) == "", len(threads) > 1, own())
	for range 20 { // whichever thread it is
		told := make(chan time.Duration)
		go func() { told <- own() }()
		if late := <-told; late != own() {
			fmt.Println("a thread has", late)
		}
	}
	started := func() {
		said, err := exec.Command("cat", "/proc/self/timerslack_ns").Output()
		fmt.Println(strings.TrimSpace(string(said)), err)
	}
	started()
	Usual(started)
	fmt.Println(own())
}

// program is a copy of this one, by a name that leads to it.
func program(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program, link := filepath.Join(dir, "program-1.4"), filepath.Join(dir, "tests")
	if err := errors.Join(os.WriteFile(program, data, 0o700), os.Symlink(program, link)); err != nil {
		t.Fatal(err)
	}
	return link
}

// run has a process widen its timers that was started by one whose own are late by so much.
func run(t *testing.T, program, command string, late time.Duration, env ...string) []string {
	t.Helper()
	cmd := exec.Command(program, command, "two")
	cmd.Env = append(append(os.Environ(), asked+"=1"), env...)
	type result struct {
		said []byte
		err  error
	}
	done := make(chan result)
	go func() {
		Usual(func() { // on a thread of its own
			if err := set(late); err != nil {
				done <- result{err: err}
				return
			}
			said, err := cmd.Output()
			if back := set(usual); err == nil {
				err = back
			}
			done <- result{said, err}
		})
	}()
	r := <-done
	if r.err != nil {
		t.Fatalf("%v: %s", r.err, r.said)
	}
	return strings.Split(strings.TrimSpace(string(r.said)), "\n")
}

// A process that widens its timers is called as before, has the same arguments, and no trace of it
// in its environment; all of its threads have wide ones, and what it starts only unless told otherwise.
func TestWiden(t *testing.T) {
	for name, c := range map[string]struct {
		late    time.Duration
		env     []string
		want    []string
		command string
	}{
		"usual":                      {usual, nil, []string{"tests 3 true true 1ms", "1000000 <nil>", "50000 <nil>", "1ms"}, ""},
		"by whoever started":         {Late, nil, []string{"tests 3 true true 1ms", "1000000 <nil>", "50000 <nil>", "1ms"}, ""},
		"somebody's choice":          {70 * time.Microsecond, nil, []string{"tests 3 true true 70µs", "70000 <nil>", "70000 <nil>", "70µs"}, ""},
		"does not run for long":      {usual, nil, []string{"tests 3 true true 50µs", "50000 <nil>", "50000 <nil>", "50µs"}, "short"},
		"where it can't be run anew": {usual, []string{asked + "=" + unexecutable}, []string{"true 50µs"}, ""},
		"tried in vain":              {usual, []string{kept + "=1"}, []string{"tests 3 true true 50µs", "50000 <nil>", "50000 <nil>", "50µs"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := run(t, program(t), cmp.Or(c.command, "one"), c.late, c.env...); strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("it says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}
