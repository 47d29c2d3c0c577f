package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/proto/settings"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/server"
)

// patience is how long a test waits for what has to happen. It is no measure of
// anything: only what is broken takes as long.
const patience = 2 * time.Minute

// primary is one that runs in this process.
type primary struct {
	*testing.T
	dir, addr string
	jobs      schedv1.JobServiceClient
	cluster   schedv1.ClusterServiceClient
	stop      func()
}

// start starts a primary on the data in a directory. It leads by itself.
func start(t *testing.T, dir string) *primary {
	t.Helper()
	c := server.DefaultConfig()
	c.NodeID, c.DataDir, c.APIAddr, c.WebAddr = "p1", dir, "127.0.0.1:0", "127.0.0.1:0"
	c.Cluster.Addr = ""
	s, err := server.Open(c, server.Seams{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // it outlives the test's, to be stopped in order
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("the primary: %v", err)
		}
	})
	conn, err := grpc.NewClient(s.APIAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	p := &primary{T: t, dir: dir, addr: s.APIAddr(), jobs: schedv1.NewJobServiceClient(conn), cluster: schedv1.NewClusterServiceClient(conn)}
	p.stop = sync.OnceFunc(func() {
		conn.Close()
		cancel()
		running.Wait()
	})
	t.Cleanup(p.stop)
	return p
}

// ask calls until the primary can answer: one that has just started may take longer
// to lead, on a slow disk, than a call waits for that.
func ask[Q, A any](p *primary, call func(context.Context, Q, ...grpc.CallOption) (A, error), q Q) A {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	for {
		a, err := call(ctx, q, grpc.WaitForReady(true))
		switch {
		case err == nil:
			return a
		case status.Code(err) != codes.Unavailable || ctx.Err() != nil:
			p.Fatal(err)
		}
	}
}

func (p *primary) put(name string) {
	p.Helper()
	ask(p, p.jobs.PutJob, &schedv1.PutJobRequest{Job: &schedv1.Job{Name: name, Task: script("true")}})
}

// has returns the names of the jobs that there are.
func (p *primary) has() string {
	p.Helper()
	var names []string
	for _, j := range ask(p, p.jobs.ListJobs, &schedv1.ListJobsRequest{}).GetJobs() {
		names = append(names, j.GetName())
	}
	return strings.Join(names, " ")
}

// schedd runs a command line, and returns all that it says and what it exits with.
func schedd(t *testing.T, line ...string) (said string, code int) {
	t.Helper()
	var out, logs bytes.Buffer
	code = settings.Report("schedd", run(t.Context(), line, &out, &logs), &out)
	return out.String(), code
}

// says fails the test unless a command line exits with the code and says all of
// that.
func says(t *testing.T, code int, want []string, line ...string) string {
	t.Helper()
	said, got := schedd(t, line...)
	for _, w := range want {
		if got != code || !strings.Contains(said, w) {
			t.Fatalf("schedd %s exits with %d and says\n%s\nwant %d and %q", strings.Join(line, " "), got, said, code, w)
		}
	}
	return said
}

// A snapshot is saved, inspected, and restored after a mishap.
func TestSnapshot(t *testing.T) {
	p := start(t, t.TempDir())
	dir := t.TempDir()
	file := filepath.Join(dir, "a.snap")
	p.put("one")
	p.put("two")
	holds := []string{"2 jobs, 0 runs, 0 workers", "p1 at", "cluster"}
	says(t, 0, append(holds, "saved "+file), "snapshot", "save", "--server", p.addr, file)
	says(t, 0, holds, "snapshot", "inspect", file)
	if i, err := os.Stat(file); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: want a file for its owner only, since it holds secrets", i.Mode(), err)
	}

	// It is not written over by mistake, and not touched when it can't be renewed.
	p.put("three")
	says(t, 1, []string{"exists", "--force"}, "snapshot", "save", "--server", p.addr, file)
	says(t, 0, []string{"3 jobs"}, "snapshot", "save", file, "--force", "--server", p.addr)
	says(t, 1, []string{"connection refused"}, "snapshot", "save", "--force", "--server", "127.0.0.1:1", file)
	says(t, 1, []string{"no such file"}, "snapshot", "save", "--server", p.addr, filepath.Join(dir, "missing", "a.snap"))
	says(t, 0, []string{"3 jobs"}, "snapshot", "inspect", file)
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left behind is %v, %v", left, err)
	}

	ask(p, p.jobs.DeleteJob, &schedv1.DeleteJobRequest{Name: "two"})
	p.put("four")
	says(t, 0, []string{"restored " + file, "3 jobs"}, "snapshot", "restore", "--server", p.addr, file)
	if is := p.has(); is != "one three two" {
		t.Errorf("there are %s", is)
	}

	// A file that is damaged is not even sent.
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p.put("five")
	for name, text := range map[string][]byte{"cut": whole[:len(whole)-1], "flipped": slices.Concat(whole[:len(whole)/2], []byte{whole[len(whole)/2] ^ 1}, whole[len(whole)/2+1:]), "empty": nil} {
		bad := filepath.Join(dir, name)
		if err := os.WriteFile(bad, text, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, line := range [][]string{{"snapshot", "inspect", bad}, {"snapshot", "restore", "--server", "127.0.0.1:1", bad}} {
			if said := says(t, 1, []string{"inspect " + bad}, line...); strings.Contains(said, "refused") {
				t.Errorf("it was sent: %s", said)
			}
		}
	}
	if is := p.has(); is != "five one three two" {
		t.Errorf("there are %s", is)
	}
	says(t, 1, []string{"no such file"}, "snapshot", "inspect", filepath.Join(dir, "none"))
}

func TestSnapshotWrongUsage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.snap")
	for _, test := range []struct{ line, want string }{
		{"snapshot", "there are save, restore and inspect"},
		{"snapshot copy", "there are save, restore and inspect"},
		{"snapshot save", "name one file"},
		{"snapshot save a b", "name one file"},
		{"snapshot save --server", "--server needs a value"},
		{"snapshot save --sever x a", "did you mean --server?"},
		{"snapshot save --server nowhere " + file, `"nowhere" is not host:port`},
		{"snapshot save --server 10.0.0.1:7421 " + file, "give --insecure"},
		{"snapshot restore --server schedd.example:7421 " + file, "give --insecure"},
		{"snapshot restore --force " + file, `unknown flag "--force"`},
		{"snapshot inspect --server x " + file, `unknown flag "--server"`},
	} {
		says(t, settings.ExitUsage, []string{test.want}, strings.Fields(test.line)...)
	}
	for _, line := range []string{"snapshot --help", "snapshot save --help", "snapshot restore --help", "snapshot inspect --help", "recover --help"} {
		says(t, 0, []string{"schedd " + strings.TrimSuffix(line, "--help")}, strings.Fields(line)...)
	}
}

// Arguments that are no flags may stand anywhere.
func TestOperands(t *testing.T) {
	for _, test := range []struct{ args, flags, rest string }{
		{"", "", ""},
		{"f", "", "f"},
		{"--server h:1 f", "--server h:1", "f"},
		{"f --server h:1", "--server h:1", "f"},
		{"a --force b --server=h:1 c", "--force --server=h:1", "a b c"},
		{"--force -- --server f", "--force", "--server f"},
		{"-- f", "", "f"},
		{"f --", "", "f"},
		{"--bad f", "--bad f", ""},
		{"f --server", "--server", "f"},
		{"--help f", "--help f", ""},
	} {
		_, fs := snapshotFlags("save")
		flags, rest := operands(fs, strings.Fields(test.args))
		if got := strings.Join(flags, " "); got != test.flags {
			t.Errorf("%q: the flags are %q, want %q", test.args, got, test.flags)
		}
		if got := strings.Join(rest, " "); got != test.rest {
			t.Errorf("%q: the rest is %q, want %q", test.args, got, test.rest)
		}
		fs.VisitAll(func(f *flag.Flag) {
			if f.Value.String() != f.DefValue {
				t.Errorf("%q: --%s was set to %s by looking", test.args, f.Name, f.Value)
			}
		})
	}
}

// One environment serves all commands, and still none may be misspelt.
func TestEnvironmentServesAll(t *testing.T) {
	dir := t.TempDir()
	start(t, dir).stop()
	for name, value := range map[string]string{
		"SCHEDD_SERVER": "127.0.0.1:1", "SCHEDD_FORCE": "true", "SCHEDD_PEER": "p1=h:1,p2=h:2", "SCHEDD_NODE_ID": "p1", "SCHEDD_DEMO": "true",
	} {
		t.Setenv(name, value)
	}
	file := filepath.Join(t.TempDir(), "a.snap")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	says(t, 1, []string{"connect: connection refused"}, "snapshot", "save", file) // it is forced, to that address
	says(t, 1, []string{"damaged"}, "snapshot", "inspect", file)
	says(t, 0, []string{"of primary p1", "p1 at h:1", "p2 at h:2"}, "recover", "--data-dir", dir, "--dry-run")
	says(t, 2, []string{"can be reached by others"}, "serve", "--api-addr", ":7421")
	says(t, 2, []string{"can be reached by others"}, "dev", "--api-addr", "0.0.0.0:1")
	t.Setenv("SCHEDD_SERVR", "x")
	for _, line := range []string{"snapshot inspect " + file, "recover --dry-run", "serve", "dev"} {
		says(t, 2, []string{"did you mean SCHEDD_SERVER?"}, strings.Fields(line)...)
	}
}

// brokenPipe is standard output that nobody reads.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestSnapshotToNobody(t *testing.T) {
	if err := run(t.Context(), []string{"snapshot", "--help"}, brokenPipe{}, brokenPipe{}); err == nil {
		t.Error("no error, want that of the output")
	}
}

// Who saves a state that is too large to come back learns it then, and not on the
// day when it has to.
func TestTooLargeASnapshot(t *testing.T) {
	if err := mayRestore(raftstore.SnapshotInfo{Size: raftstore.MaxSnapshot}); err != nil {
		t.Errorf("as large as may be: %v", err)
	}
	err := mayRestore(raftstore.SnapshotInfo{Size: raftstore.MaxSnapshot + 1})
	if want := "it has 2147483649 bytes, of 2147483648 that are taken: keep fewer runs"; !errors.Is(err, raftstore.ErrSnapshotTooLarge) || !strings.Contains(err.Error(), want) {
		t.Errorf("err = %v, want one that says %q", err, want)
	}
}
