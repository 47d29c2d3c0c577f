package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/schedd/schedd/proto/settings"
)

// Wrong usage is told in one line that says what to do, and exits with 2.
func TestWrongUsage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "schedd.yaml")
	if err := os.WriteFile(file, []byte("node_id: a\napi_adr: 127.0.0.1:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ args, want string }{
		{"", "give a command: dev, serve, snapshot, recover, confirm-loss, torture, bench, keygen or version"},
		{"start", `unknown command "start"`},
		{"version now", "version takes no arguments"},
		{"keygen 64", "keygen takes no arguments"},
		{"serve --api-adr x", "did you mean --api-addr?"},
		{"serve --config " + file, "schedd.yaml:2: unknown key \"api_adr\""},
		{"serve --api-addr :7421", "--api-addr: :7421 can be reached by others"},
		{"serve --bootstrap-expect 3", "names 0 other primaries, and --bootstrap-expect 3 needs all 2 of them"},
		{"serve --bootstrap-expect 9", "9 is not between 1 and 7"},
		{"serve --join p1", "\"p1\" is no address"},
		{"serve --cluster-addr 0.0.0.0:7420 --insecure", "--cluster-advertise: \"0.0.0.0:7420\" can't be dialled by others"},
		{"serve --cluster-addr 10.0.0.1:7420", "make a key with \"schedd keygen\""},
		{"serve --log-format xml", `"xml" is neither text nor json`},
		{"dev --api-addr 0.0.0.0:1", "can be reached by others"},
		{"dev now", "now"},
		{"torture", "give either --local, or --server"},
		{"torture --local --server 127.0.0.1:7421", "give either --local, or --server"},
		{"torture --server 10.0.0.1:7421", "give --insecure"},
		{"torture --server 127.0.0.1:7421,here", `"here" is not host:port`},
		{"torture --local --for 5s", "--for: 5s is not between 10s and 4h0m0s"},
		{"torture --local --primaries 0", "--primaries: 0 is not between 1 and 7"},
		{"torture --local --workers 51", "--workers: 51 is not between 1 and 50"},
		{"torture --local --settle 0s", "--settle: 0s is no time"},
		{"torture --local --leader-kills=-1", "--leader-kills: -1 is less than none"},
		{"torture --local --effects /tmp", "--effects: with --local there is"},
		{"torture --local --selector a=b", "--selector: with --local the workers have no labels"},
		{"torture --server 127.0.0.1:7421 --effects here", `--effects: "here" is not absolute`},
		{"torture --server 127.0.0.1:7421 --leader-kills 1", "no primary is killed that --pid does not name"},
		{"torture --server 127.0.0.1:7421 --cut-links", "no link is cut but of a primary that --pid names"},
		{"torture --server 127.0.0.1:7421 --pid p1", "want NAME=FILE"},
		{"torture --server 127.0.0.1:7421 --pid p1=" + file, "names 4 processes, want one"},
		{"torture now", "now"},
	} {
		var out, logs, line bytes.Buffer
		code := settings.Report("schedd", run(t.Context(), strings.Fields(test.args), &out, &logs), &line)
		if code != settings.ExitUsage || !strings.Contains(line.String(), test.want) || strings.Count(line.String(), "\n") != 1 {
			t.Errorf("schedd %s exits with %d and says %q, want %d and %q", test.args, code, line.String(), settings.ExitUsage, test.want)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"--help", "serve --help lists its settings"},
		{"help", "dev           everything in one process"},
		{"serve --help", "--api-addr"},
		{"serve --help", "127.0.0.1:7421"},
		{"serve --help", "SCHEDD_"},
		{"dev --help", "--demo"},
		{"torture --help", "--leader-kills"},
		{"torture --help", "exits with 0 when all promises that it looked at were kept"},
		{"version", "schedd "},
	} {
		var out, logs bytes.Buffer
		if err := run(t.Context(), strings.Fields(test.args), &out, &logs); err != nil || !strings.Contains(out.String(), test.want) {
			t.Errorf("schedd %s: %v, printed %q, want %q", test.args, err, out.String(), test.want)
		}
	}
}

// The environment serves all commands: a setting of serve is none of dev's
// business.
func TestEnvironmentIsShared(t *testing.T) {
	t.Setenv("SCHEDD_NODE_ID", "p1")
	t.Setenv("SCHEDD_DEMO", "true")
	for _, args := range []string{"dev --help", "serve --help"} {
		if err := run(t.Context(), strings.Fields(args), &bytes.Buffer{}, &bytes.Buffer{}); err != nil {
			t.Errorf("schedd %s: %v", args, err)
		}
	}
}

// A key is 32 random bytes, and never the same twice.
func TestKeygen(t *testing.T) {
	seen := map[string]bool{}
	for range 3 {
		var out bytes.Buffer
		if err := run(t.Context(), []string{"keygen"}, &out, &bytes.Buffer{}); err != nil {
			t.Fatal(err)
		}
		key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(out.String()))
		if err != nil || len(key) != 32 || seen[out.String()] {
			t.Errorf("key %q: %d bytes, %v, seen before: %v", out.String(), len(key), err, seen[out.String()])
		}
		seen[out.String()] = true
	}
}

// That a promise was broken goes over all else that went wrong in a torture.
func TestExitCodes(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("else"), 1},
		{settings.Errorf("usage"), 2},
		{fmt.Errorf("%w: nobody answers", errUnjudged), 2},
		{untidy(errors.New("a job is left")), 2},
		{errors.Join(fmt.Errorf("%w, in 3 places", errBroken), untidy(errors.New("a job is left"))), 1},
		{errors.Join(errBroken, errUnjudged), 1},
	} {
		if got := exitCode(test.err, settings.Report("schedd", test.err, &bytes.Buffer{})); got != test.want {
			t.Errorf("%v: %d, want %d", test.err, got, test.want)
		}
	}
}
