package api

import (
	"fmt"
	"math"
	"path"
	"regexp"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"k8s.io/apimachinery/pkg/labels"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
	"github.com/schedd/schedd/server/schedule"
)

// Limits of a definition.
const (
	maxDescription = 4096
	maxTriggers    = 64
	maxArgs        = 1024
	maxInput       = 128 << 10 // of argv together, of a script, of stdin; bytes
	maxInterpreter = 64
	maxEnv         = 256
	maxPath        = 4096
	maxUser        = 256
	maxSelector    = 1024
	maxConcurrent  = 1000
	maxAttempts    = 100
	maxExitCodes   = 255
)

// draft is a definition that was read and found right.
type draft struct {
	key        state.JobKey
	definition *state.Definition
	compiled   []*schedule.Trigger // of each trigger of the definition
}

// readJob checks a job and fills in what it leaves to the defaults. The draft is
// good only when nothing was found wrong.
func readJob(c scope, p *schedv1.Job) draft {
	if p == nil {
		c.failf("is required")
		return draft{}
	}
	d := draft{key: c.jobKey(p.GetNamespace(), p.GetName())}
	d.definition = &state.Definition{
		Description: c.in("description").text(p.GetDescription(), maxDescription),
		Labels:      state.PairsOf(c.in("labels").labels(p.GetLabels())),
		Task:        c.in("task").task(p.GetTask()),
		Target:      c.in("target").target(p.GetTarget()),
		Policy:      c.in("policy").policy(p.GetPolicy()),
	}
	d.definition.Triggers, d.compiled = c.in("triggers").triggers(d.key, p.GetTriggers())
	if n := proto.Size(showDefinition(d.key, d.definition)); n > wire.MaxDefinition {
		c.failf("has %d bytes, of %d allowed for a whole definition", n, wire.MaxDefinition)
	}
	return d
}

func (c scope) task(p *schedv1.Task) state.Task {
	t := state.Task{
		Env:        state.PairsOf(c.in("env").env(p.GetEnv())),
		WorkingDir: c.in("working_dir").workingDir(p.GetWorkingDir()),
		User:       c.in("user").user(p.GetUser()),
		Stdin:      p.GetStdin(),
		Limits:     c.in("limits").limits(p.GetLimits()),
	}
	c.in("stdin").size(len(t.Stdin), maxInput)
	switch do := p.GetDo().(type) {
	case *schedv1.Task_Exec:
		t.Argv = c.in("exec").in("argv").argv(do.Exec.GetArgv())
	case *schedv1.Task_Script:
		t.Script, t.Interpreter = c.in("script").script(do.Script)
	case *schedv1.Task_Http:
		c.in("http").unservedf("http is not served yet; use exec or script, with curl for example")
	case *schedv1.Task_Plugin:
		c.in("plugin").unservedf("plugin is not served yet; use exec or script")
	default:
		c.failf("says nothing to do: give exec or script")
	}
	return t
}

// What limits may be; 0 is none.
const (
	leastMemory = 1 << 20
	mostMemory  = 1 << 50
	leastCPUs   = 0.01
	mostCPUs    = 10_000
	mostPIDs    = 1_000_000
)

func (c scope) limits(p *schedv1.Limits) state.Limits {
	l := state.Limits{
		Memory: number(c.in("memory_bytes"), p.GetMemoryBytes(), leastMemory, mostMemory, 0),
		PIDs:   number(c.in("pids"), p.GetPids(), 1, mostPIDs, 0),
	}
	cpus := p.GetCpus()
	if cpus == 0 {
		return l
	}
	if !(cpus >= leastCPUs && cpus <= mostCPUs) { // not a number, too
		c.in("cpus").failf("is %v; allowed are %v to %d, and 0 for no limit", cpus, leastCPUs, mostCPUs)
		return l
	}
	l.CPUMillis = int64(math.Round(cpus * 1000))
	return l
}

func (c scope) argv(argv []string) []string {
	total := 0
	for i, a := range argv {
		total += len(a)
		if strings.ContainsRune(a, 0) {
			c.at(i).failf("must not contain the character NUL")
		}
	}
	switch {
	case len(argv) == 0:
		c.failf("is empty; it needs at least the program")
	case argv[0] == "":
		c.at(0).failf("is empty; it has to be a program")
	case len(argv) > maxArgs:
		c.failf("has %d entries, of %d allowed", len(argv), maxArgs)
	case total > maxInput:
		c.failf("has %d bytes together, of %d allowed", total, maxInput)
	}
	return argv
}

// defaultInterpreter runs a script that names none, unless a "#!" line does.
var defaultInterpreter = []string{"/bin/sh", "-e"}

func (c scope) script(p *schedv1.Script) (body string, interpreter []string) {
	body, interpreter = p.GetBody(), p.GetInterpreter()
	if body == "" {
		c.in("body").failf("is required: the text of the script")
	}
	c.in("body").text(body, maxInput)
	if len(interpreter) == 0 {
		return body, defaultInterpreter
	}
	c = c.in("interpreter")
	for i, a := range interpreter {
		c.at(i).text(a, maxPath)
	}
	if interpreter[0] == "" {
		c.at(0).failf("is empty; it has to be a program")
	}
	if len(interpreter) > maxInterpreter {
		c.failf("has %d entries, of %d allowed", len(interpreter), maxInterpreter)
	}
	return body, interpreter
}

var envSyntax = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (c scope) env(env map[string]string) map[string]string {
	if len(env) == 0 {
		return nil
	}
	if len(env) > maxEnv {
		c.failf("has %d entries, of %d allowed", len(env), maxEnv)
		return nil
	}
	for _, k := range sortedKeys(env) {
		switch {
		case !envSyntax.MatchString(k):
			c.key(k).failf("%s is not the name of a variable: letters, digits and '_', the first not a digit", quote(k))
		case strings.HasPrefix(k, "SCHEDD_"):
			c.key(k).failf("names that begin with SCHEDD_ are taken")
		}
		c.key(k).text(env[k], maxInput)
	}
	return env
}

func (c scope) workingDir(dir string) string {
	if dir != "" && !path.IsAbs(dir) {
		c.failf("%s is not an absolute path", quote(dir))
	}
	return c.text(dir, maxPath)
}

func (c scope) user(user string) string {
	if strings.ContainsFunc(user, func(r rune) bool { return r <= ' ' || r == ':' || r == '/' || r == 0x7f }) {
		c.failf("%s is not the name of a user", quote(user))
	}
	return c.text(user, maxUser)
}

func (c scope) target(p *schedv1.Target) state.Target {
	t := state.Target{Selector: c.in("selector").selector(p.GetSelector())}
	if p.GetStrategy() == schedv1.Strategy_STRATEGY_ALL {
		c.in("strategy").unservedf("STRATEGY_ALL is not served yet; make a job for each worker")
		return t
	}
	t.Strategy = strategies.read(c.in("strategy"), p.GetStrategy())
	return t
}

func (c scope) selector(s string) string {
	c.size(len(s), maxSelector)
	if len(s) > maxSelector {
		return s
	}
	if _, err := labels.Parse(s); err != nil {
		c.failf(`can't be read: %v; write it as in "zone=eu,!spot,disk in (ssd,nvme)"`, err)
	}
	return s
}

// What the durations of a policy may be.
var (
	catchUpWindows = span{0, 31 * 24 * time.Hour, time.Hour}
	timeouts       = span{0, maxDuration, 0}
	killGraces     = span{0, time.Hour, 10 * time.Second}
	queueTimeouts  = span{time.Second, maxDuration, time.Hour}
	startWithins   = span{time.Second, maxDuration, 5 * time.Minute}
	initialDelays  = span{0, maxDuration, time.Second}
	maxDelays      = span{0, maxDuration, 300 * time.Second}
	lostAfters     = span{60 * time.Second, maxDuration, 180 * time.Second}
	killAfters     = span{30 * time.Second, maxDuration / 2, 0}
)

// What the numbers of a policy may be.
const (
	leastLog     = 64 << 10
	mostLog      = 16 << 30
	defaultLog   = 64 << 20
	mostMultiply = 10
)

func (c scope) policy(p *schedv1.Policy) *state.Policy {
	policy := &state.Policy{
		Overlap:       overlaps.read(c.in("overlap"), p.GetOverlap()),
		MaxConcurrent: int(number(c.in("max_concurrent"), p.GetMaxConcurrent(), 1, maxConcurrent, 1)),
		CatchUp:       catchUps.read(c.in("catch_up"), p.GetCatchUp()),
		CatchUpWindow: c.in("catch_up_window").duration(p.GetCatchUpWindow(), catchUpWindows),
		Timeout:       c.in("timeout").duration(p.GetTimeout(), timeouts),
		KillGrace:     c.in("kill_grace").duration(p.GetKillGrace(), killGraces),
		QueueTimeout:  c.in("queue_timeout").duration(p.GetQueueTimeout(), queueTimeouts),
		StartWithin:   c.in("start_within").duration(p.GetStartWithin(), startWithins),
		TotalTimeout:  c.in("total_timeout").duration(p.GetTotalTimeout(), timeouts),
		Retry:         c.in("retry").retry(p.GetRetry()),
		OnLost:        onLosts.read(c.in("on_lost"), p.GetOnLost()),
		LostAfter:     c.in("lost_after").duration(p.GetLostAfter(), lostAfters),
		LogLimit:      number(c.in("log_limit_bytes"), p.GetLogLimitBytes(), leastLog, mostLog, defaultLog),
		KillAfter:     c.in("kill_after").killAfter(p.GetKillAfter()),
	}
	c.leases(policy, p.GetLostAfter() != nil)
	return policy
}

// killAfter reads how long an attempt may go on without a lease. Less than two pings
// of a worker, which come every 8 to 12 s, would end what nothing has happened to.
func (c scope) killAfter(p *durationpb.Duration) time.Duration {
	if p.GetSeconds() == 0 && p.GetNanos() == 0 {
		return 0
	}
	return c.duration(p, killAfters)
}

// leases sees that an attempt which needs leases has ended before it is given up.
func (c scope) leases(p *state.Policy, given bool) {
	if p.KillAfter == 0 || !c.ok() {
		return
	}
	switch least := plan.LeastLostAfter(p.KillAfter, p.KillGrace); {
	case p.LostAfter >= least:
	case !given:
		p.LostAfter = (least + time.Second - 1).Truncate(time.Second)
	default:
		c.in("lost_after").failf("is %v, and with a kill_after of %v and a kill_grace of %v a worker may need until %v to have ended an attempt: make it at least that, or kill_after shorter, or leave lost_after out",
			p.LostAfter, p.KillAfter, p.KillGrace, least)
	}
}

func (c scope) retry(p *schedv1.Retry) state.Retry {
	r := state.Retry{
		MaxAttempts:  int(number(c.in("max_attempts"), p.GetMaxAttempts(), 1, maxAttempts, 1)),
		InitialDelay: c.in("initial_delay").duration(p.GetInitialDelay(), initialDelays),
		Multiplier:   p.GetMultiplier(),
		MaxDelay:     c.in("max_delay").duration(p.GetMaxDelay(), maxDelays),
	}
	if r.Multiplier == 0 {
		r.Multiplier = 2
	}
	if !(r.Multiplier >= 1 && r.Multiplier <= mostMultiply) { // not a number, too
		c.in("multiplier").failf("is %v; allowed are 1 to %d", r.Multiplier, mostMultiply)
	}
	if r.InitialDelay > r.MaxDelay && c.ok() {
		c.in("initial_delay").failf("is %v, which is more than max_delay, %v", r.InitialDelay, r.MaxDelay)
	}
	c = c.in("exit_codes")
	if n := len(p.GetExitCodes()); n > maxExitCodes {
		c.failf("has %d entries, of %d allowed", n, maxExitCodes)
		return r
	}
	for i, code := range p.GetExitCodes() {
		if code < 1 || code > 255 {
			c.at(i).failf("is %d; allowed are 1 to 255, and 0 is success", code)
		}
		r.ExitCodes = append(r.ExitCodes, int(code))
	}
	return r
}

// neverAgain says what is wrong with a new trigger that has no occurrence after
// now, or none after what is decided of its id already; "" when it has one.
func neverAgain(t *state.Trigger, c *schedule.Trigger, now, decided time.Time) (field, problem string) {
	if t.Disabled || !c.Next(latest(now, decided)).IsZero() {
		return "", ""
	}
	why := fmt.Sprintf("there is none after now, %s", now.UTC().Format(time.RFC3339))
	ahead := !c.Next(now).IsZero()
	if ahead {
		why = fmt.Sprintf("all up to %s is decided for this trigger already, by a clock that was ahead: give it another id", decided.UTC().Format(time.RFC3339))
	}
	switch {
	case !t.At.IsZero() && ahead:
		return "at.time", "leaves no occurrence: " + why
	case !t.At.IsZero():
		return "at.time", fmt.Sprintf("lies in the past: it is %s now", now.UTC().Format(time.RFC3339))
	case !t.End.IsZero():
		return "end_time", "leaves no occurrence: " + why
	}
	return "exclude", "leaves no occurrence: " + why
}
