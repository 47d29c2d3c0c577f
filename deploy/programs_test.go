//go:build e2e

package deploy_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestMain finds the programs.
func TestMain(m *testing.M) {
	if os.Getenv("E2E_BIN") == "" {
		fmt.Fprintln(os.Stderr, `deploy: E2E_BIN has to name the directory of schedd and schedagent: "deploy/check" sets it`)
		os.Exit(2)
	}
	flag.Parse()
	os.Exit(m.Run())
}

// binary is the path of one of our programs.
func binary(name string) string { return filepath.Join(os.Getenv("E2E_BIN"), name) }

// clean is our environment without what could be a setting.
func clean() (env []string) {
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "SCHEDD_") && !strings.HasPrefix(kv, "SCHEDAGENT_") {
			env = append(env, kv)
		}
	}
	return env
}

// nowhere is a data directory that nobody can make.
const nowhere = "/dev/null/schedd"

// takes asserts that a program takes these settings: started with them, all that
// it finds wrong is its data directory, which it looks at after them.
func takes(t *testing.T, program string, env []string, args ...string) {
	t.Helper()
	args = append(args, "--data-dir="+nowhere)
	if program == "schedd" {
		key := filepath.Join(t.TempDir(), "cluster.key")
		made, err := exec.Command(binary("schedd"), "keygen").Output()
		if err == nil {
			err = os.WriteFile(key, made, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		// The last of two flags counts. On a port that is free.
		args = append(args, "--cluster-key="+key, "--api-addr=127.0.0.1:0", "--web-addr=127.0.0.1:0", "--cluster-addr=127.0.0.1:0")
	}
	cmd := exec.Command(binary(program), args...)
	cmd.Env = append(clean(), env...)
	var said bytes.Buffer
	cmd.Stderr = &said
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(said.String(), filepath.Dir(nowhere)) {
		t.Errorf("%s %s\nended with %v and said\n%s", program, strings.Join(args, " "), err, said.String())
	}
}

// The programs know each setting in the files for systemd.
func TestUnitsAreSetRight(t *testing.T) {
	takes(t, "schedd", nil, "serve", "--config=systemd/schedd.yaml")
	takes(t, "schedagent", nil, "run", "--config=systemd/schedagent.yaml", "--start-runner=false")
	takes(t, "schedagent", nil, "run", "--config=systemd/schedagent.yaml", "--start-runner=false", "--runner-dir=/var/lib/schedagent-runner")
	rules, err := filepath.Abs("systemd/policy.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	takes(t, "schedagent", nil, "runner", "--policy="+rules)
}

// Likewise for what the containers are started with.
func TestContainersAreSetRight(t *testing.T) {
	services := compose(t).get("services")
	for name, program := range map[string]string{"p1": "schedd", "p2": "schedd", "p3": "schedd", "w1": "schedagent", "w2": "schedagent"} {
		s := services.get(name)
		var env []string
		for _, key := range s.get("environment").keys() {
			env = append(env, key+"="+s.get("environment", key).text())
		}
		takes(t, program, env, s.get("command").texts()...)
	}
}

// Likewise for the pods, with the variables that Kubernetes sets for services.
func TestPodsAreSetRight(t *testing.T) {
	services := []string{"SCHEDD_SERVICE_HOST=10.0.0.1", "SCHEDD_PORT_7421_TCP=tcp://10.0.0.1:7421"}
	for workload, program := range map[string]string{"StatefulSet schedd": "schedd", "Deployment schedagent": "schedagent"} {
		var args []string
		for _, arg := range manifest(t, workload).get("spec", "template", "spec", "containers").only().get("args").texts() {
			args = append(args, strings.ReplaceAll(arg, "$(POD_NAME)", "schedd-0"))
		}
		takes(t, program, services, args...)
	}
}

var (
	command = regexp.MustCompile("(schedd|schedagent) (dev|serve|run|runner|stop|keygen|recover|confirm-loss|snapshot (?:save|restore|inspect))\\b((?:[^\n`|\\\\]|\\\\\n)*)")
	option  = regexp.MustCompile(`--[a-z-]+`)
	metric  = regexp.MustCompile(`schedd_[a-z_]+`)
)

// Each flag that a guide gives to one of our programs is one that it has.
func TestGuidesGiveFlagsThatThereAre(t *testing.T) {
	helps := map[string]string{}
	for _, guide := range guides {
		for _, m := range command.FindAllStringSubmatch(read(t, guide), -1) {
			flags := option.FindAllString(m[3], -1)
			if len(flags) == 0 {
				continue
			}
			line := m[1] + " " + m[2]
			if _, asked := helps[line]; !asked {
				cmd := exec.Command(binary(m[1]), append(strings.Fields(m[2]), "--help")...)
				cmd.Env = clean()
				help, err := cmd.CombinedOutput()
				if err != nil {
					t.Errorf("%s: %s --help: %v\n%s", guide, line, err, help)
				}
				helps[line] = string(help)
			}
			for _, f := range flags {
				if !strings.Contains(helps[line], f) {
					t.Errorf("%s: %s has no %s", guide, line, f)
				}
			}
		}
	}
}

// Each metric that the guide watches is one that there is.
func TestGuideWatchesWhatThereIs(t *testing.T) {
	metrics := get(t, startPrimary(t).web, "/metrics")
	for _, name := range metric.FindAllString(read(t, "../docs/operating-a-cluster.md"), -1) {
		if !strings.Contains(metrics, name) {
			t.Errorf("there is no metric %s", name)
		}
	}
}
