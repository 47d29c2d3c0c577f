package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/schedd/schedd/proto/settings"
)

// actAsProgram makes the test binary be schedagent, for tests that need a
// process of its own, and for the runner that such a process starts.
const actAsProgram = "ACT_AS_SCHEDAGENT"

func TestMain(m *testing.M) {
	if os.Getenv(actAsProgram) != "" || len(os.Args) > 1 && os.Args[1] == "runner" {
		main()
	}
	os.Exit(m.Run())
}

// Wrong usage is told in one line that says what to do, and exits with 2.
func TestWrongUsage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(file, []byte("slots: 3\nslosts: 4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ args, want string }{
		{"", "give a command: run, runner, stop or version"},
		{"start", `unknown command "start"`},
		{"version now", "version takes no arguments"},
		{"run --slot 3", "did you mean --slots?"},
		{"run --slots 0", "slots: 0 is not between 1 and 10000"},
		{"run --labels a=1,a=2", `label "a" is given twice`},
		{"run --server 10.0.0.1:7421", "give --insecure"},
		{"run --direct-listen :7422", "can be reached from other hosts"},
		{"run --direct-listen 127.0.0.1:7422 --server here", "is not host:port"},
		{"run --join-token hush", "--join-token is not available yet"},
		{"run --log-format xml", `"xml" is neither text nor json`},
		{"run --log-level loud", "--log-level"},
		{"run --config " + file, "agent.yaml:2: unknown key \"slosts\""},
		{"run --slots 0 --server here", "; "},
	} {
		var out, logs, line bytes.Buffer
		code := settings.Report("schedagent", run(t.Context(), strings.Fields(test.args), &out, &logs), &line)
		if code != settings.ExitUsage || !strings.Contains(line.String(), test.want) || strings.Count(line.String(), "\n") != 1 {
			t.Errorf("schedagent %s exits with %d and says %q, want %d and %q", test.args, code, line.String(), settings.ExitUsage, test.want)
		}
		if strings.Contains(line.String(), "hush") {
			t.Errorf("schedagent %s tells the token: %q", test.args, line.String())
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"--help", "run --help lists its settings"},
		{"help", "version   say which version this is"},
		{"run --help", "--advertise-hostname"},
		{"run --help", "(default 127.0.0.1:7421)"},
		{"version", "schedagent "},
	} {
		var out, logs, line bytes.Buffer
		code := settings.Report("schedagent", run(t.Context(), strings.Fields(test.args), &out, &logs), &line)
		if code != settings.ExitOK || !strings.Contains(out.String(), test.want) || line.Len()+logs.Len() != 0 {
			t.Errorf("schedagent %s exits with %d and says %q (%s), want %q", test.args, code, out.String(), line.String(), test.want)
		}
	}
}

// What is written in the file, the environment and the flags becomes one
// configuration, and that of the flags wins.
func TestSettings(t *testing.T) {
	o, fs := newOptions()
	if err := fs.Parse([]string{"--labels=zone=eu,gpu", "--name=a", "--insecure", "--server=b:1"}); err != nil {
		t.Fatal(err)
	}
	if o.Labels["zone"] != "eu" || len(o.Labels) != 2 || o.Name != "a" || !o.Insecure || o.Server != "b:1" {
		t.Errorf("%+v", o.Config)
	}
	if err := o.check(); err != nil {
		t.Errorf("%+v: %v", o, err)
	}
	if got := fs.Lookup("labels").Value.String(); got != "gpu,zone=eu" {
		t.Errorf("labels are shown as %q", got)
	}
}

// A worker that listens dials only a server that somebody named, wherever that is
// written.
func TestDirectListenDialsNobody(t *testing.T) {
	for _, test := range []struct {
		args, env, want string
	}{
		{"", "", "127.0.0.1:7421"},
		{"--direct-listen=127.0.0.1:7422", "", ""},
		{"--direct-listen=127.0.0.1:7422 --server=127.0.0.1:7421", "", "127.0.0.1:7421"},
		{"--direct-listen=127.0.0.1:7422", "localhost:1", "localhost:1"},
	} {
		t.Run(test.args+test.env, func(t *testing.T) {
			t.Setenv("SCHEDAGENT_SERVER", test.env) // an empty one counts as none
			o, fs := newOptions()
			if err := o.parse(fs, append(strings.Fields(test.args), "--name=a")); err != nil || o.Server != test.want {
				t.Errorf("server %q, %v; want %q", o.Server, err, test.want)
			}
		})
	}
}

// program starts schedagent as a process of its own.
func program(t *testing.T, args ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	return programIn(t, nil, args...)
}

// programIn starts it with more in its environment.
func programIn(t *testing.T, env []string, args ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(append(os.Environ(), actAsProgram+"=1"), env...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if at := slices.Index(args, "--data-dir"); at >= 0 {
		t.Cleanup(func() { stopAll(t, args[at+1]) })
	}
	return cmd, bufio.NewScanner(stderr)
}

// stopAll ends what was started in a data directory.
func stopAll(t *testing.T, dir string) string {
	t.Helper()
	var out, logs bytes.Buffer
	if err := run(context.WithoutCancel(t.Context()), []string{"stop", "--data-dir", dir}, &out, &logs); err != nil {
		t.Errorf("stop: %v", err)
	}
	return out.String()
}

// await reads the log until a line has the text.
func await(t *testing.T, lines *bufio.Scanner, text string) {
	t.Helper()
	for lines.Scan() {
		if strings.Contains(lines.Text(), text) {
			return
		}
	}
	t.Fatalf("the log ends without %q", text)
}

// A signal ends a worker in order, even one that found no gateway; and while it
// runs, no other may use its directory.
func TestSignals(t *testing.T) {
	dir := t.TempDir()
	// Nobody listens on port 1.
	args := []string{"run", "--data-dir", dir, "--server", "127.0.0.1:1", "--name", "a"}
	cmd, lines := program(t, args...)
	await(t, lines, "no session; trying again")

	second, told := program(t, args...)
	await(t, told, "schedagent: data directory")
	if !strings.Contains(told.Text(), "another schedagent uses it") {
		t.Errorf("the second one says %q", told.Text())
	}
	var exit *exec.ExitError
	if err := second.Wait(); !errors.As(err, &exit) || exit.ExitCode() != settings.ExitFailed {
		t.Errorf("the second one ended with %v, want exit code %d", err, settings.ExitFailed)
	}

	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await(t, lines, "worker stopped")
	for lines.Scan() {
		t.Errorf("after the end: %q", lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the worker ended with %v, want exit code 0", err)
	}
}

// Errors of several lines come out as one.
func TestReportIsOneLine(t *testing.T) {
	var line bytes.Buffer
	code := settings.Report("schedagent", errors.Join(errors.New("a"), fmt.Errorf("b: %w", os.ErrPermission)), &line)
	if code != settings.ExitFailed || line.String() != "schedagent: a; b: permission denied\n" {
		t.Errorf("%d, %q", code, line.String())
	}
}
