package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/schedd/schedd/proto/settings"
	"github.com/schedd/schedd/server"
	"github.com/schedd/schedd/server/local"
	"github.com/schedd/schedd/server/torture"
	"github.com/schedd/schedd/server/torture/harm"
	"github.com/schedd/schedd/server/torture/verdict"
)

const tortureSummary = `schedd torture --local [--primaries 3] [--workers 4] [--for 5m] [flags]
schedd torture --server HOST:PORT[,HOST:PORT...] [--effects DIR] [flags]

Have a cluster run jobs while it is harmed, and tell whether it kept its promises:
each occurrence decided once, no attempt started twice, each log whole. --local starts
a cluster of its own on this host, kills what it can, and removes all of it. With
--server it is yours, and nothing is harmed but what --pid names: that has to be on
this host, and something has to start it again. The jobs that torture makes it removes;
their finished runs and output stay until they are pruned, as those of any job.

It exits with 0 when all promises that it looked at were kept, with 1 when one was
broken, and with 2 when that could not be told. See docs/torture.md.`

// Why a torture does not exit with 0.
var (
	errBroken   = errors.New("promises were broken")
	errUnjudged = errors.New("not judged")
	errUntidy   = errors.New("not all was removed that was made")
)

// untidy says that something was left behind, if so.
func untidy(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errUntidy, err)
}

// tortureOptions are the settings of torture.
type tortureOptions struct {
	server, namespace, effects, record string
	selector, user                     string
	insecure, local, cutLinks          bool
	victims                            victims
	span, settle                       time.Duration
	seed                               uint64
	primaries, workers, leaderKills    int
}

func tortureFlags() (*tortureOptions, *flag.FlagSet) {
	o := &tortureOptions{}
	fs := flag.NewFlagSet("schedd torture", flag.ContinueOnError)
	fs.StringVar(&o.server, "server", "", "`addresses` of the API, separated by commas: of each primary, or of the load balancer")
	fs.BoolVar(&o.insecure, "insecure", false, "talk to another host without TLS and authentication")
	fs.BoolVar(&o.local, "local", false, "start a cluster of its own on this host, and harm it")
	fs.IntVar(&o.primaries, "primaries", 3, "`number` of primaries of that, 1 to 7")
	fs.IntVar(&o.workers, "workers", 4, "`number` of workers of that, 1 to 50")
	fs.DurationVar(&o.span, "for", 5*time.Minute, "`time` for which jobs are due, 10s to 4h")
	fs.DurationVar(&o.settle, "settle", 5*time.Minute, "`time` after that for what runs to end")
	fs.Uint64Var(&o.seed, "seed", 0, "`number` that the faults are drawn from (default: another one each time)")
	fs.IntVar(&o.leaderKills, "leader-kills", 0, "least `number` of times that the leader is killed (default: with --local one for each 2m; one for each 30s is aimed at)")
	fs.StringVar(&o.namespace, "namespace", "torture", "`name` of the namespace of the jobs that it makes")
	fs.StringVar(&o.selector, "selector", "", "label `selector` of the workers that the jobs may run on, such as torture=yes (default: all)")
	fs.StringVar(&o.user, "user", "", "`name` of the user that the jobs run as (default: what the worker takes for those that name none)")
	fs.StringVar(&o.effects, "effects", "", "`directory` that the workers share with this host, in which jobs write down that they ran")
	fs.Var(&o.victims, "pid", "`NAME=FILE` of a primary or worker that may be killed and halted, and the file with its process id, here; once for each")
	fs.BoolVar(&o.cutLinks, "cut-links", false, "also cut the links of primaries that may be harmed, by rules of iptables; needs root")
	fs.StringVar(&o.record, "record", "", "`file` to write all that was seen to, as JSON")
	return o, fs
}

// runTorture is the command torture.
func runTorture(ctx context.Context, args []string, out io.Writer) error {
	o, fs := tortureFlags()
	if err := settings.Parse(fs, args, envPrefix, allFlags()...); err != nil {
		if errors.Is(err, settings.ErrHelp) {
			return settings.Usage(fs, out, envPrefix, tortureSummary)
		}
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	c := torture.Config{
		Namespace: o.namespace, Selector: o.selector, User: o.user, For: o.span, Settle: o.settle, Seed: o.seed, Effects: o.effects, LeaderKills: o.leaderKills, Out: out,
	}
	if o.local {
		return o.tortureLocally(ctx, c)
	}
	c.Servers, c.Victims = strings.Split(o.server, ","), o.victims
	return o.torture(ctx, c)
}

// victims is processes as they are given to --pid.
type victims []torture.Victim

// String implements [flag.Value].
func (v *victims) String() string {
	var list []string
	for _, victim := range *v {
		list = append(list, victim.String())
	}
	return strings.Join(list, ",")
}

// Set implements [flag.Value]: it adds to what was given before.
func (v *victims) Set(text string) error {
	for item := range strings.SplitSeq(text, ",") {
		name, file, ok := strings.Cut(strings.TrimSpace(item), "=")
		if !ok || name == "" || file == "" {
			return errors.New("want NAME=FILE")
		}
		p, err := harm.Find(file)
		if err != nil {
			return err
		}
		victim := torture.Victim{Part: p.Part(), Name: name, Process: p, Stranger: p}
		if slices.ContainsFunc(*v, func(other torture.Victim) bool { return other.String() == victim.String() }) {
			return fmt.Errorf("the %v is named twice", victim)
		}
		*v = append(*v, victim)
	}
	return nil
}

// check tells what can't be done.
func (o *tortureOptions) check() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if o.local == (o.server != "") {
		fault("give either --local, or --server with the addresses of a cluster of yours, such as %s", server.DefaultConfig().APIAddr)
	}
	if o.server != "" {
		for address := range strings.SplitSeq(o.server, ",") {
			if err := mayCall(address, o.insecure); err != nil {
				faults = append(faults, err)
			}
		}
	}
	if o.span < 10*time.Second || o.span > torture.MaxFor {
		fault("--for: %v is not between 10s and %v", o.span, torture.MaxFor)
	}
	if o.settle <= 0 {
		fault("--settle: %v is no time", o.settle)
	}
	if o.primaries < 1 || o.primaries > 7 {
		fault("--primaries: %d is not between 1 and 7", o.primaries)
	}
	if o.workers < 1 || o.workers > 50 {
		fault("--workers: %d is not between 1 and 50", o.workers)
	}
	if o.leaderKills < 0 {
		fault("--leader-kills: %d is less than none", o.leaderKills)
	}
	if o.leaderKills > 0 && !o.local && len(o.victims) == 0 {
		fault("--leader-kills: no primary is killed that --pid does not name")
	}
	if o.cutLinks && !o.local && len(o.victims) == 0 {
		fault("--cut-links: no link is cut but of a primary that --pid names")
	}
	if len(o.victims) > 0 && o.local {
		fault("--pid: with --local all primaries and workers are harmed, and nobody else")
	}
	if o.effects != "" && !filepath.IsAbs(o.effects) {
		fault("--effects: %q is not absolute, and workers have other working directories", o.effects)
	}
	if o.selector != "" && o.local {
		fault("--selector: with --local the workers have no labels, and all of them run the jobs")
	}
	if o.effects != "" && o.local {
		fault("--effects: with --local there is a directory for that already")
	}
	if len(faults) > 0 {
		return settings.Errorf("%w", errors.Join(faults...))
	}
	return nil
}

// How often the leader of a cluster of its own is killed: if it recovers in time, and at
// least. A machine on which a group takes 15 seconds to recover gets to one in 25.
const (
	killEach      = 30 * time.Second
	killEachLeast = 2 * time.Minute
)

// localSlots is how many runs a worker of a cluster of its own takes: enough for all of
// them to be tried again on one.
const localSlots = 64

// victimsOf are all processes of a cluster of its own.
func victimsOf(c *local.Cluster) (all []torture.Victim) {
	for _, d := range c.Primaries() {
		all = append(all, torture.Victim{Part: torture.Primary, Name: d.Name(), Process: d})
	}
	for i, d := range c.Workers() {
		all = append(all, torture.Victim{Part: torture.Worker, Name: d.Name(), Process: d},
			torture.Victim{Part: torture.Runner, Name: d.Name(), Process: c.Runners()[i]})
	}
	return all
}

// tortureLocally starts a cluster, tortures it, and ends it. Its directory is kept
// when it shows something.
func (o *tortureOptions) tortureLocally(ctx context.Context, c torture.Config) (err error) {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("%w: find this program: %w", errUnjudged, err)
	}
	agent := filepath.Join(filepath.Dir(self), "schedagent")
	if _, err := os.Stat(agent); err != nil {
		return fmt.Errorf("%w: --local needs schedagent beside schedd: %w", errUnjudged, err)
	}
	dir, err := os.MkdirTemp("", "schedd-torture-")
	if err != nil {
		return fmt.Errorf("%w: make a temporary directory: %w", errUnjudged, err)
	}
	defer func() {
		if err == nil || ctx.Err() != nil {
			err = errors.Join(err, untidy(os.RemoveAll(dir)))
			return
		}
		_, _ = fmt.Fprintf(c.Out, "kept %s, with the data and the logs of all primaries and workers\n", dir)
	}()
	cluster, err := local.Start(ctx, local.Config{Schedd: self, Agent: agent, Dir: dir, Primaries: o.primaries, Workers: o.workers, Slots: localSlots})
	if err != nil {
		return fmt.Errorf("%w: %w", errUnjudged, err)
	}
	defer func() { err = errors.Join(err, untidy(cluster.Stop(ctx))) }()
	c.Servers, c.Victims, c.Closed, c.Crashes = cluster.Servers(), victimsOf(cluster), true, cluster.Crashes
	c.Effects = filepath.Join(dir, "effects")
	c.LeaderKills, c.KillEach = cmp.Or(c.LeaderKills, int(c.For/killEachLeast)), killEach
	c.Ready = o.workers
	o.record = cmp.Or(o.record, filepath.Join(dir, "record.json"))
	return o.torture(ctx, c)
}

// torture tortures a cluster that runs, and tells what came of it.
func (o *tortureOptions) torture(ctx context.Context, c torture.Config) error {
	for i, v := range c.Victims {
		if v.Part != torture.Primary || !o.cutLinks {
			continue
		}
		links, err := harm.CutLinks(ctx, v.Process)
		if err != nil {
			return fmt.Errorf("%w: --cut-links: %w", errUnjudged, err)
		}
		c.Victims[i].Process = links
	}
	rec, judgement, err := torture.Run(ctx, c)
	if ctx.Err() != nil {
		return fmt.Errorf("%w: it was stopped before its end", errUnjudged)
	}
	if len(rec.Jobs) == 0 {
		return fmt.Errorf("%w: %w", errUnjudged, err)
	}
	err = untidy(err)
	if o.record != "" {
		err = errors.Join(err, writeRecord(o.record, rec))
	}
	if _, told := io.WriteString(c.Out, tortureReport(o, judgement)); told != nil {
		err = errors.Join(err, told)
	}
	if len(judgement.Violations) > 0 {
		return errors.Join(fmt.Errorf("%w, in %d places", errBroken, len(judgement.Violations)), err)
	}
	if len(judgement.Doubts) > 0 {
		return errors.Join(fmt.Errorf("%w: %s", errUnjudged, judgement.Doubts[0]), err)
	}
	return err
}

func writeRecord(name string, rec verdict.Record) error {
	text, err := json.MarshalIndent(rec, "", " ")
	if err != nil {
		return fmt.Errorf("%w: write the record: %w", errUnjudged, err)
	}
	if err := os.WriteFile(name, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("%w: write the record: %w", errUnjudged, err)
	}
	return nil
}

// mostTold is how many violations of one promise, and how many doubts, are told one
// by one.
const mostTold = 5

// tortureReport is what people read in the end.
func tortureReport(o *tortureOptions, j verdict.Judgement) string {
	var b strings.Builder
	b.WriteString("\n" + j.Summary.Table() + "\n")
	told := map[verdict.Promise]int{}
	for _, v := range j.Violations {
		if told[v.Promise]++; told[v.Promise] > mostTold {
			continue
		}
		fmt.Fprintf(&b, "BROKEN: %s\n  %s\n", v.Promise, v.Text)
		if v.Job != "" {
			fmt.Fprintf(&b, "  job %s%s, as %s tells it\n", v.Job, whichRun(v), cmp.Or(v.Server, "nobody"))
		}
		if see := o.evidence(v); see != "" {
			b.WriteString("  see: " + see + "\n")
		}
	}
	for _, promise := range slices.Sorted(maps.Keys(told)) {
		if more := told[promise] - mostTold; more > 0 {
			fmt.Fprintf(&b, "and %d more times: %s\n", more, promise)
		}
	}
	for i, d := range j.Doubts {
		if i == mostTold {
			fmt.Fprintf(&b, "and %d more that were not seen\n", len(j.Doubts)-i)
			break
		}
		fmt.Fprintf(&b, "NOT SEEN: %s\n", d)
	}
	if len(j.Unlooked) > 0 {
		fmt.Fprintf(&b, "NOT LOOKED AT: %s%s\n", list(j.Unlooked), o.howToLook())
	}
	switch {
	case j.Held() && len(j.Unlooked) > 0:
		b.WriteString("the other promises were kept\n")
	case j.Held():
		b.WriteString("all promises were kept\n")
	}
	fmt.Fprintf(&b, "seed %d\n", o.seed)
	return b.String()
}

// list names promises in a line.
func list(promises []verdict.Promise) string {
	var b strings.Builder
	for i, p := range promises {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(string(p))
	}
	return b.String()
}

// howToLook says how more promises could be looked at; "" when they can't be on this
// cluster.
func (o *tortureOptions) howToLook() string {
	if o.effects != "" || o.local {
		return ""
	}
	return " (--effects looks at the first three)"
}

func whichRun(v verdict.Violation) string {
	switch {
	case v.Run == "":
		return ""
	case v.Attempt == 0:
		return ", run " + v.Run
	}
	return fmt.Sprintf(", run %s, attempt %d", v.Run, v.Attempt)
}

// evidence is the command that shows what a violation is about. A cluster of its
// own is gone by then, and its record is there.
func (o *tortureOptions) evidence(v verdict.Violation) string {
	call := func(method, request string, args ...any) string {
		return fmt.Sprintf("grpcurl -plaintext -d '%s' %s schedd.v1.%s", fmt.Sprintf(request, args...), v.Server, method)
	}
	switch {
	case o.local && v.Run != "":
		return fmt.Sprintf("jq '.Views[].Runs[] | select(.ID == %q)' %s; grep %s %s/effects/*/*", v.Run, o.record, v.Run, filepath.Dir(o.record))
	case o.local && v.Job != "":
		return fmt.Sprintf("jq '.Views[].Ledger[%q]' %s", v.Job, o.record)
	case v.Server == "":
		return ""
	case v.Promise == verdict.OutputWhole:
		return call("RunService/ReadLog", `{"run_id":%q,"attempt":%d}`, v.Run, v.Attempt)
	case v.Run != "":
		return call("RunService/GetRun", `{"id":%q}`, v.Run)
	case v.Promise == verdict.OneRun:
		return call("RunService/ListRuns", `{"filter":"namespace=%s,job=%s"}`, o.namespace, v.Job)
	}
	return call("JobService/VerifyLedger", `{"namespace":%q,"name":%q}`, o.namespace, v.Job)
}
