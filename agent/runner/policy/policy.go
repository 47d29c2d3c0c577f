// Package policy is what the operator of a worker's host allows to be run on it.
//
// It stands in a file on that host, which the runner reads each time before it
// starts something, so that a change counts at once. Nobody who talks to the worker
// can widen it: neither a primary nor who has stolen one. A file that can't be read,
// or makes no sense, allows nothing.
//
// It narrows what can be done and makes nothing safe by itself: a program that is
// allowed is given any arguments and any input, and a shell that is allowed is
// everything its user may do. It starts nothing and knows no attempt.
package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/schedd/schedd/agent/runner/cgroup"
	"github.com/schedd/schedd/agent/runner/trust"
)

// maxFile bounds a policy file, in bytes.
const maxFile = 1 << 20

// Policy is what is allowed. The zero one allows everything. Patterns are those of
// [path.Match].
type Policy struct {
	// Users are patterns of the names of users that jobs may run as, the runner's
	// own among them. Nil: any that the runner can be.
	Users []string
	// DefaultUser is whom jobs run as that name nobody. It need not be among
	// Users. Empty: the runner's own.
	DefaultUser string
	// Programs are patterns of the paths of programs that may be started; the
	// interpreter of a script is one. Nil: any.
	Programs []string
	// Env are patterns of the names of variables that jobs may set. Nil: any.
	Env []string
	// MaxTimeout is how long an attempt may run whatever its job says, with the
	// time in which it is asked to end. 0: as long as that says.
	MaxTimeout time.Duration
	// MaxLimits are what an attempt may use whatever its job says. Zero: as much as
	// that says.
	MaxLimits cgroup.Limits
}

// User returns whom a job runs as that names somebody, or nobody.
func (p Policy) User(named string) string {
	if named == "" {
		return p.DefaultUser
	}
	return named
}

// Timeout returns how long an attempt may run before it is asked to end, 0 is for ever, and
// how long it is spared then. Both together are no more than MaxTimeout. What of that is the
// grace's comes off the timeout, so that there is time to end in order; but no more than half,
// unless the job itself leaves more.
func (p Policy) Timeout(asked, grace time.Duration) (timeout, spared time.Duration) {
	if p.MaxTimeout <= 0 {
		return asked, grace
	}
	spared = p.MaxTimeout / 2
	if asked > 0 {
		spared = max(spared, p.MaxTimeout-asked)
	}
	spared = min(grace, spared)
	if most := p.MaxTimeout - spared; asked <= 0 || asked > most {
		return most, spared
	}
	return asked, spared
}

// Limits returns what an attempt may use whose job asks for that much; zero is
// without limit.
func (p Policy) Limits(asked cgroup.Limits) cgroup.Limits {
	least := func(asked, most int64) int64 {
		if most > 0 && (asked <= 0 || asked > most) {
			return most
		}
		return asked
	}
	return cgroup.Limits{
		Memory:    least(asked.Memory, p.MaxLimits.Memory),
		CPUMillis: least(asked.CPUMillis, p.MaxLimits.CPUMillis),
		PIDs:      least(asked.PIDs, p.MaxLimits.PIDs),
	}
}

// CheckUser returns why nothing may run as a user.
func (p Policy) CheckUser(name string) error {
	if p.Users == nil || name == p.DefaultUser || matches(p.Users, name) {
		return nil
	}
	return fmt.Errorf("this worker's policy does not let jobs run as user %q, only as %s: name one of them", name, list(append([]string{p.DefaultUser}, p.Users...)))
}

// CheckProgram returns why a program may not be started. Its path is absolute and
// clean: what is checked is what has to be started.
func (p Policy) CheckProgram(file string) error {
	if p.Programs == nil || matches(p.Programs, file) {
		return nil
	}
	return fmt.Errorf("this worker's policy does not let %q be started, only %s", file, list(p.Programs))
}

// CheckEnv returns why an environment may not be given to a program. Variables that
// tell of the run may always, with any value, since it is the agent that sets them and
// nobody here knows the run; and those in ours, as NAME=value.
func (p Policy) CheckEnv(env []string, ours ...string) error {
	if p.Env == nil {
		return nil
	}
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if !slices.Contains(ours, kv) && !slices.Contains(ofRun, name) && !matches(p.Env, name) {
			return fmt.Errorf("this worker's policy does not let jobs set the variable %q, only %s; HOME and the like have to be as they are for that user", name, list(p.Env))
		}
	}
	return nil
}

// ofRun are the variables that an agent sets for each attempt; a job can't.
var ofRun = []string{
	"SCHEDD_RUN_ID", "SCHEDD_ATTEMPT", "SCHEDD_FENCE", "SCHEDD_JOB", "SCHEDD_NAMESPACE", "SCHEDD_TRIGGER",
	"SCHEDD_SCHEDULED_AT", "SCHEDD_WORKER",
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	})
}

// list shows patterns to people.
func list(patterns []string) string {
	patterns = slices.DeleteFunc(slices.Clone(patterns), func(p string) bool { return p == "" })
	if len(patterns) == 0 {
		return "none at all"
	}
	return strings.Join(patterns, ", ")
}

// file is a policy as it is written.
type file struct {
	Users       []string `yaml:"users"`
	DefaultUser string   `yaml:"default_user"`
	Programs    []string `yaml:"programs"`
	Env         []string `yaml:"env"`
	MaxTimeout  string   `yaml:"max_timeout"`
	MaxMemory   *string  `yaml:"max_memory"`
	MaxCPUs     *float64 `yaml:"max_cpus"`
	MaxPIDs     *int64   `yaml:"max_pids"`
}

// Read reads a policy from a file, whose name is absolute. It and the directories on
// the way to it have to belong to root or to this process's user, and nobody else may
// write to them.
func Read(name string) (Policy, error) {
	if err := trust.Path(name); err != nil {
		return Policy{}, fmt.Errorf("this worker's policy %s could be replaced by others: %w", name, err)
	}
	f, err := os.Open(name)
	if err != nil {
		return Policy{}, fmt.Errorf("read this worker's policy: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	if err := trusted(f); err != nil {
		return Policy{}, fmt.Errorf("this worker's policy %s: %w", name, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("it has more than %d bytes", maxFile)
	}
	if err != nil {
		return Policy{}, fmt.Errorf("read this worker's policy %s: %w", name, err)
	}
	p, err := parse(text)
	if err != nil {
		return Policy{}, fmt.Errorf("this worker's policy %s: %w", name, err)
	}
	return p, nil
}

// trusted finds what would let others write the policy.
func trusted(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others may write to it (mode %v): chmod go-w it", info.Mode().Perm())
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user number %d, who could widen it: chown it to root", st.Uid)
	}
	return nil
}

// unsaid finds the rules that say nothing, as a list does whose lines were all made
// comments: to YAML that is the same as no rule, and allows everything.
func unsaid(text []byte) (faults []error) {
	var rules map[string]yaml.Node
	if err := yaml.Unmarshal(text, &rules); err != nil {
		return []error{err}
	}
	for key, value := range rules {
		if value.Tag == "!!null" {
			faults = append(faults, fmt.Errorf("%s: it says nothing: write [] to allow none, or leave the line out to allow any", key))
		}
	}
	return faults
}

// parse reads the text of a policy. What it does not know is an error: a rule with a
// misspelt name would forbid nothing.
func parse(text []byte) (Policy, error) {
	var f file
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return Policy{}, err
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return Policy{}, errors.New("there is a second document in it, which would not count: leave one")
	}
	p := Policy{Users: f.Users, DefaultUser: f.DefaultUser, Programs: f.Programs, Env: f.Env}
	faults := unsaid(text)
	if f.MaxTimeout != "" {
		d, err := time.ParseDuration(f.MaxTimeout)
		if err != nil || d <= 0 {
			faults = append(faults, fmt.Errorf(`max_timeout: %q is no duration such as "90s" or "4h"`, f.MaxTimeout))
		}
		p.MaxTimeout = d
	}
	limits, err := f.limits()
	p.MaxLimits, faults = limits, append(faults, err)
	for key, patterns := range map[string][]string{"users": p.Users, "programs": p.Programs, "env": p.Env} {
		for _, pattern := range patterns {
			if _, err := path.Match(pattern, ""); err != nil {
				faults = append(faults, fmt.Errorf("%s: %q is no pattern: %w", key, pattern, err))
			}
		}
	}
	for _, pattern := range p.Programs {
		if !filepath.IsAbs(pattern) || filepath.Clean(pattern) != pattern {
			faults = append(faults, fmt.Errorf("programs: %q is no clean path from / on", pattern))
		}
	}
	return p, errors.Join(faults...)
}

// limits reads what an attempt may use.
func (f file) limits() (l cgroup.Limits, err error) {
	var faults []error
	if f.MaxMemory != nil {
		if l.Memory, err = parseSize(*f.MaxMemory); err != nil {
			faults = append(faults, fmt.Errorf("max_memory: %w", err))
		}
	}
	if c := f.MaxCPUs; c != nil {
		if l.CPUMillis = int64(math.Round(*c * 1000)); !(*c >= 0.01 && *c <= maxCPUs) {
			faults = append(faults, fmt.Errorf("max_cpus: %v is not between 0.01 and %d", *c, maxCPUs))
		}
	}
	if n := f.MaxPIDs; n != nil {
		if l.PIDs = *n; *n < 1 {
			faults = append(faults, fmt.Errorf("max_pids: %d is less than 1", *n))
		}
	}
	return l, errors.Join(faults...)
}

// maxCPUs bounds max_cpus.
const maxCPUs = 100_000

// parseSize reads a size such as "512M" or "4G": powers of 1024, as systemd has them.
func parseSize(text string) (int64, error) {
	units := map[string]int64{"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
	digits := strings.TrimRight(text, "KMGT")
	n, err := strconv.ParseInt(digits, 10, 64)
	unit, known := units[text[len(digits):]]
	if err != nil || !known || n < 1 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf(`%q is no size such as "512M" or "4G"`, text)
	}
	return n * unit, nil
}
