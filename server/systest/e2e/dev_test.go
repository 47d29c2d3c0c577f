//go:build e2e

package e2e_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// Whoever tries it out for the first time is told what to type next, and all of
// that works; afterwards nothing is left.
func TestDevDemo(t *testing.T) {
	t.Parallel()
	p := newPrimary(t)
	temp := t.TempDir()
	p.process = start(t, "schedd dev", []string{"TMPDIR=" + temp}, binary("schedd"), "dev", "--demo", "--api-addr", p.api, "--web-addr", p.web)
	var greeting string
	await(t, "it says what to try next", func() (bool, any) {
		if greeting = readFile(t, p.out); !p.running() {
			t.Fatalf("it ended with exit code %d", p.code)
		}
		return strings.Contains(greeting, "Ctrl-C"), greeting
	})
	for _, word := range []string{p.api, "http://" + p.web + "/metrics", "removed at exit", "Try next"} {
		if !strings.Contains(greeting, word) {
			t.Errorf("there is no %q in\n%s", word, greeting)
		}
	}
	if made, err := os.ReadDir(temp); err != nil || len(made) != 1 || !strings.Contains(greeting, filepath.Join(temp, made[0].Name())) {
		t.Errorf("the temporary directory is one of %v (%v), and it says\n%s", made, err, greeting)
	}

	jobs, err := p.jobs.ListJobs(t.Context(), &schedv1.ListJobsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, j := range jobs.GetJobs() {
		names = append(names, j.GetName())
		if j.GetQuarantine() != "" || j.GetDescription() == "" || j.GetNextTime() == nil {
			t.Errorf("a demo job worth looking at is wanted, got %v", j)
		}
	}
	for _, name := range []string{"hello", "slow", "flaky", "nightly-report"} {
		if !slices.Contains(names, name) {
			t.Errorf("there is no job %s among %v", name, names)
		}
	}
	// The one that fails at first succeeds in the end. Its turn comes within a
	// minute; run by hand it is the same.
	flaky := p.awaitEnd(t, p.run(t, "flaky"))
	phase(t, flaky, schedv1.Phase_PHASE_SUCCEEDED)
	if n := len(flaky.GetAttempts()); n != 2 {
		t.Errorf("the flaky one took %d attempts, want 2", n)
	}
	phase(t, p.awaitEnd(t, p.run(t, "nightly-report")), schedv1.Phase_PHASE_SUCCEEDED)
	p.awaitRuns(t, "hello", "the demo says hello", succeeded(1))
	tryAll(t, p, greeting)

	p.stop(t)
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("of the temporary directory is left %v, %v", left, err)
	}
}

// tryAll runs all lines of grpcurl in the greeting, in a shell as it was told,
// with a run's id for ID.
func tryAll(t *testing.T, p *primary, greeting string) {
	t.Helper()
	lines := regexp.MustCompile(`(?m)^ *(grpcurl .*)$`).FindAllStringSubmatch(greeting, -1)
	if len(lines) < 5 {
		t.Errorf("there are %d lines of grpcurl in\n%s", len(lines), greeting)
	}
	id := p.listRuns(t, "job=hello,phase=PHASE_SUCCEEDED")[0].GetId()
	grpcurl(t, p.api) // is it there?
	path := "PATH=" + os.Getenv("E2E_BIN") + ":" + os.Getenv("PATH")
	for _, l := range lines {
		line := strings.ReplaceAll(l[1], `"ID"`, `"`+id+`"`)
		if r := command(t, []string{path}, "/bin/sh", "-c", line); r.code != 0 || r.out == "" {
			t.Errorf("%s\nexits with %d and says %s%s", line, r.code, r.out, r.err)
		}
	}
}

// With a data directory of one's own all is there again the next day.
func TestDevKeepsADirectory(t *testing.T) {
	t.Parallel()
	p := newPrimary(t)
	argv := []string{binary("schedd"), "dev", "--data-dir", p.dir, "--api-addr", p.api, "--web-addr", p.web}
	for day := range 2 {
		p.process = start(t, "schedd dev", nil, argv...)
		await(t, "it says what to try next", func() (bool, any) {
			text := readFile(t, p.out)
			return strings.Contains(text, "Ctrl-C"), text
		})
		p.ready(t)
		if day == 0 {
			job := &schedv1.Job{Name: "mine", Task: &schedv1.Task{Do: &schedv1.Task_Exec{Exec: &schedv1.Exec{Argv: []string{"true"}}}}}
			p.put(t, job)
		}
		phase(t, p.awaitEnd(t, p.run(t, "mine")), schedv1.Phase_PHASE_SUCCEEDED)
		p.stop(t)
	}
}
