//go:build e2e

package e2e_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Wrong usage exits with 2 and one line that says what is wrong and what to do;
// so does what can't work, with 1.
func TestWrongUsage(t *testing.T) {
	t.Parallel()
	schedd, agent := binary("schedd"), binary("schedagent")
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	misspelt := file("schedd.yaml", "# a comment\nnode_id: a\napi_adr: 127.0.0.1:1\n")
	misspelt2 := file("agent.yaml", "slots: 3\nlables: gpu\n")
	noNumber := file("number.yaml", "\nbootstrap_expect: three\n")
	noFile := file("file", "")
	for name, test := range map[string]struct {
		argv  []string
		env   []string
		code  int
		words string // separated by |
	}{
		"no command":              {[]string{schedd}, nil, 2, "serve"},
		"unknown command":         {[]string{schedd, "server"}, nil, 2, `"server"|serve`},
		"unknown flag":            {[]string{schedd, "serve", "--api-adr", "x"}, nil, 2, "--api-adr|did you mean --api-addr"},
		"unknown variable":        {[]string{schedd, "serve"}, []string{"SCHEDD_API_ADR=x"}, 2, "SCHEDD_API_ADR|did you mean SCHEDD_API_ADDR"},
		"unknown key":             {[]string{schedd, "serve", "--config", misspelt}, nil, 2, "schedd.yaml:3|api_adr|did you mean api_addr"},
		"value in the file":       {[]string{schedd, "serve", "--config", noNumber}, nil, 2, "number.yaml:2|bootstrap_expect|three"},
		"value in a variable":     {[]string{schedd, "serve"}, []string{"SCHEDD_BOOTSTRAP_EXPECT=three"}, 2, "SCHEDD_BOOTSTRAP_EXPECT|three"},
		"no file":                 {[]string{schedd, "serve", "--config", filepath.Join(dir, "none.yaml")}, nil, 2, "none.yaml"},
		"address without a port":  {[]string{schedd, "serve", "--api-addr", "localhost"}, nil, 2, "--api-addr|host:port"},
		"reachable by others":     {[]string{schedd, "serve", "--api-addr", "0.0.0.0:0"}, nil, 2, "--api-addr|--insecure"},
		"reachable by all":        {[]string{schedd, "serve", "--web-addr", ":0"}, nil, 2, "--web-addr|--insecure"},
		"all that is wrong":       {[]string{schedd, "serve", "--api-addr", "x", "--web-addr", "y", "--node-id", "?"}, nil, 2, "--api-addr|--web-addr|--node-id"},
		"log format":              {[]string{schedd, "serve", "--log-format", "xml"}, nil, 2, "xml|json"},
		"log level":               {[]string{schedd, "serve", "--log-level", "loud"}, nil, 2, "--log-level"},
		"leftover":                {[]string{schedd, "keygen", "now"}, nil, 2, "now"},
		"directory is a file":     {[]string{schedd, "serve", "--data-dir", noFile, "--api-addr", "127.0.0.1:0", "--web-addr", "127.0.0.1:0", "--cluster-addr", "127.0.0.1:0"}, nil, 1, noFile},
		"agent: no command":       {[]string{agent}, nil, 2, "run"},
		"agent: unknown command":  {[]string{agent, "start"}, nil, 2, `"start"|run`},
		"agent: unknown flag":     {[]string{agent, "run", "--slot", "3"}, nil, 2, "--slot|did you mean --slots"},
		"agent: unknown variable": {[]string{agent, "run"}, []string{"SCHEDAGENT_SLOT=3"}, 2, "SCHEDAGENT_SLOT|did you mean SCHEDAGENT_SLOTS"},
		"agent: unknown key":      {[]string{agent, "run", "--config", misspelt2}, nil, 2, "agent.yaml:2|lables|did you mean labels"},
		"agent: other host":       {[]string{agent, "run", "--server", "192.0.2.1:7421"}, nil, 2, "192.0.2.1|--insecure"},
		"agent: labels":           {[]string{agent, "run", "--labels", "a b=c"}, nil, 2, "a b"},
		"agent: slots":            {[]string{agent, "run", "--slots", "0"}, nil, 2, "slots"},
		"agent: directory":        {[]string{agent, "run", "--data-dir", noFile}, nil, 1, noFile},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := command(t, test.env, test.argv...)
			if r.code != test.code || !r.oneLine() || r.out != "" {
				t.Errorf("it exits with %d, want %d, and says %q %q, want one line", r.code, test.code, r.out, r.err)
			}
			if name := filepath.Base(test.argv[0]) + ": "; !strings.HasPrefix(r.err, name) {
				t.Errorf("it does not say who speaks: %q", r.err)
			}
			for word := range strings.SplitSeq(test.words, "|") {
				if !strings.Contains(r.err, word) {
					t.Errorf("it does not tell of %q: %q", word, r.err)
				}
			}
		})
	}
}

// Help says what there is, with the defaults of the documentation, and exits
// with 0.
func TestHelp(t *testing.T) {
	t.Parallel()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		program, args string
		want          []string
	}{
		{"schedd", "--help", []string{"dev ", "serve ", "keygen ", "version "}},
		{"schedd", "help", []string{"dev ", "serve "}},
		{"schedd", "serve --help", []string{
			"--config", "--public-url", "--join", "--cluster-key", "--cluster-advertise", "--insecure",
			"--node-id", "(default " + host + ")", "--data-dir", "(default /var/lib/schedd)",
			"--api-addr", "(default 127.0.0.1:7421)", "--cluster-addr", "(default 127.0.0.1:7420)",
			"--web-addr", "(default 127.0.0.1:7480)", "--bootstrap-expect", "(default 1)",
			"--log-level", "(default INFO)", "--log-format", "(default text)", "SCHEDD_", "second signal",
		}},
		{"schedd", "dev --help", []string{"--data-dir", "--demo"}},
		{"schedagent", "--help", []string{"run ", "version "}},
		{"schedagent", "run --help", []string{
			"--config", "--labels", "--advertise-hostname", "--advertise-ip", "--direct-listen", "--join-token", "--insecure",
			"--server", "(default 127.0.0.1:7421)", "--data-dir", "(default /var/lib/schedagent)",
			"--name", "(default " + host + ")", "--slots", "(default ", "SCHEDAGENT_", "second signal",
		}},
	} {
		t.Run(test.program+" "+test.args, func(t *testing.T) {
			t.Parallel()
			r := command(t, nil, append([]string{binary(test.program)}, strings.Fields(test.args)...)...)
			if r.code != 0 || r.err != "" {
				t.Errorf("it exits with %d and says %q on standard error", r.code, r.err)
			}
			for _, word := range test.want {
				if !strings.Contains(r.out, word) {
					t.Errorf("there is no %q in\n%s", word, r.out)
				}
			}
			for line := range strings.Lines(r.out) {
				if strings.TrimRight(line, " \n") != strings.TrimSuffix(line, "\n") {
					t.Errorf("a line ends in blanks: %q", line)
				}
			}
		})
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"schedd", "schedagent"} {
		r := command(t, nil, binary(program), "version")
		if f := strings.Fields(r.out); r.code != 0 || r.err != "" || len(f) < 2 || f[0] != program || strings.Count(r.out, "\n") != 1 {
			t.Errorf("%s version exits with %d and says %q %q", program, r.code, r.out, r.err)
		}
	}
}

// Each key is another one, of 32 bytes.
func TestKeygen(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 3 {
		r := command(t, nil, binary("schedd"), "keygen")
		key, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(r.out, "\n"))
		if r.code != 0 || r.err != "" || err != nil || len(key) != 32 || seen[r.out] {
			t.Errorf("schedd keygen exits with %d and says %q %q: %d bytes, %v, seen before: %v", r.code, r.out, r.err, len(key), err, seen[r.out])
		}
		seen[r.out] = true
	}
}

// A port that is in use, and a data directory that is, are told in one line; the
// one that was there first does not notice.
func TestOnlyOneOfEach(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := newPrimary(t)
	for name, test := range map[string]struct{ argv, words []string }{
		"API port":     {replaced(w.args(), w.dir, other.dir, w.web, other.web, w.others, other.others), []string{w.api, "in use", "--api-addr"}},
		"web port":     {replaced(w.args(), w.dir, other.dir, w.api, other.api, w.others, other.others), []string{w.web, "in use", "--web-addr"}},
		"cluster port": {replaced(w.args(), w.dir, other.dir, w.api, other.api, w.web, other.web), []string{w.others, "in use", "--cluster-addr"}},
		"data":         {replaced(w.args(), w.api, other.api, w.web, other.web, w.others, other.others), []string{w.dir, "another process"}},
		"agent data":   {w.worker.args(), []string{w.worker.dir, "another schedagent", "--data-dir"}},
	} {
		r := command(t, nil, test.argv...)
		lines := strings.Split(strings.TrimSuffix(r.err, "\n"), "\n")
		end := lines[len(lines)-1] // what comes before is the log
		if r.code != 1 || !strings.HasPrefix(end, filepath.Base(test.argv[0])+": ") {
			t.Errorf("%s: it exits with %d, want 1, and says %q", name, r.code, r.err)
		}
		for _, word := range test.words {
			if !strings.Contains(end, word) {
				t.Errorf("%s: it does not tell of %q: %q", name, word, end)
			}
		}
	}
	renamed := replaced(w.args(), "p1", "p2")
	w.worker.online(t, w.primary)
	w.stop(t)
	r := command(t, nil, renamed...)
	if r.code != 1 || !strings.Contains(r.err, `"p1"`) || !strings.Contains(r.err, `"p2"`) {
		t.Errorf("another primary's directory: it exits with %d and says %q", r.code, r.err)
	}
	w.start(t)
	w.worker.online(t, w.primary)
}

// replaced returns a command line with some words in place of others.
func replaced(argv []string, words ...string) []string {
	return strings.Split(strings.NewReplacer(pairs(words)...).Replace(strings.Join(argv, "\x00")+"\x00"), "\x00")[:len(argv)]
}

// pairs makes whole words of words.
func pairs(words []string) []string {
	var whole []string
	for _, w := range words {
		whole = append(whole, "\x00"+w+"\x00")
	}
	return whole
}

// Settings come from a flag, the environment and a file, in this order.
func TestSettingsFromEverywhere(t *testing.T) {
	t.Parallel()
	p := newPrimary(t)
	file := filepath.Join(t.TempDir(), "schedd.yaml")
	text := "node_id: from-file\napi_addr: " + freeAddr(t) + "\nweb_addr: " + p.web + "\ncluster_addr: " + p.others + "\ndata_dir: /nowhere\nlog_format: json\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p.process = start(t, "schedd", []string{"SCHEDD_API_ADDR=" + p.api, "SCHEDD_CONFIG=" + file, "SCHEDD_DATA_DIR=/nowhere/else"},
		binary("schedd"), "serve", "--data-dir", p.dir)
	p.ready(t)
	var answer struct{ Status struct{ LeaderID string } }
	grpcurl(t, p.api).into(t, &answer, `{}`, "schedd.v1.ClusterService/GetStatus")
	if answer.Status.LeaderID != "from-file" {
		t.Errorf("the leader is %q", answer.Status.LeaderID)
	}
	if !strings.HasPrefix(p.said(t), "{") {
		t.Errorf("the log is no JSON: %s", p.said(t))
	}
	p.stop(t)
}

// Nobody else can reach a primary unless that was asked for, and then it says so
// loudly.
func TestInsecureIsLoud(t *testing.T) {
	t.Parallel()
	p := newPrimary(t)
	_, port, err := net.SplitHostPort(p.api)
	if err != nil {
		t.Fatal(err)
	}
	p.process = start(t, "schedd", nil, append(replaced(p.args(), p.api, "0.0.0.0:"+port), "--insecure")...)
	p.ready(t)
	w := newWorker(t, p, "w1", "--insecure")
	w.start(t, p)
	for _, process := range []*process{p.process, w.process} {
		if said := process.said(t); !strings.Contains(said, "INSECURE") || !strings.Contains(said, "WARN") {
			t.Errorf("%s does not say that it is insecure: %s", process.name, said)
		}
	}
	w.signal(t, syscall.SIGINT)
	if code := w.ended(t); code != 0 {
		t.Errorf("after SIGINT the worker exits with %d", code)
	}
	p.stop(t)
}

// The timers of programs that run for long may be late, so that they wake up less often;
// those of their jobs are as everywhere.
func TestTimersMayBeLate(t *testing.T) {
	t.Parallel()
	const late, usual = "1000000", "50000"
	w := newWorld(t)
	for name, pid := range map[string]int{"primary": w.cmd.Process.Pid, "agent": w.worker.cmd.Process.Pid, "runner": w.worker.runner(t)} {
		for _, thread := range threads(t, pid) {
			if ns := slackOf(t, thread); ns != late && ns != "" {
				t.Errorf("a timer of the %s's thread %d may be %s ns late, want %s", name, thread, ns, late)
			}
		}
	}
	w.put(t, w.script("timers", "cat /proc/self/timerslack_ns"))
	run := w.awaitEnd(t, w.run(t, "timers"))
	if log := w.readLog(t, run.GetId()); string(log) != usual+"\n" {
		t.Errorf("a timer of a job may be %q ns late, want %s", log, usual)
	}
}

// threads are those of a process.
func threads(t *testing.T, pid int) (ids []int) {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// slackOf says by how many nanoseconds a thread's timers may be late; nothing of one that has
// ended.
func slackOf(t *testing.T, thread int) string {
	t.Helper()
	ns, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", thread))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ns))
}
