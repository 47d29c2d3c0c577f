package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/schedd/schedd/proto/settings"
	"github.com/schedd/schedd/server/bench"
	"github.com/schedd/schedd/server/bench/report"
)

const benchSummary = `schedd bench [--scenario NAME[,NAME...]] [--quick] [--json FILE] [flags]
schedd bench --server HOST:PORT[,HOST:PORT...] [--scenario NAME[,NAME...]] [flags]
schedd bench --list

Measure schedd on this machine: each scenario starts the primaries and workers that it
needs on loopback, loads them, looks at them from outside, and removes all of it. Each
figure is shown beside what the machine does without schedd, and beside what it is to
reach. With --server a cluster of yours is measured, by those scenarios that harm none;
its workers have to be on this host. The jobs that bench makes it removes; their finished
runs stay until they are pruned.

It exits with 0 when all was measured, however slow it is, with 1 when an occurrence was
missed or run twice, and with 2 when something could not be measured. See
docs/performance.md.`

// benchOptions are the settings of bench.
type benchOptions struct {
	scenarios, server, json, dir, effects string
	list, quick, insecure                 bool
}

func benchFlags() (*benchOptions, *flag.FlagSet) {
	o := &benchOptions{}
	fs := flag.NewFlagSet("schedd bench", flag.ContinueOnError)
	fs.StringVar(&o.scenarios, "scenario", "", "`names` of the scenarios, separated by commas (default: all)")
	fs.BoolVar(&o.list, "list", false, "list the scenarios, and measure nothing")
	fs.BoolVar(&o.quick, "quick", false, "small sizes and short spans: to see that all works, not how fast it is")
	fs.StringVar(&o.json, "json", "", "`file` to write all figures to, as JSON")
	fs.StringVar(&o.dir, "dir", "", "`directory` for what is measured, on the disk that is to be measured (default: where temporary files are)")
	fs.StringVar(&o.server, "server", "", "`addresses` of the API of a cluster that runs, separated by commas")
	fs.BoolVar(&o.insecure, "insecure", false, "talk to another host without TLS and authentication")
	fs.StringVar(&o.effects, "effects", "", "`directory` in which processes of the workers of --server may write down that they began (default: below --dir)")
	return o, fs
}

// runBench is the command bench.
func runBench(ctx context.Context, args []string, out io.Writer) error {
	o, fs := benchFlags()
	if err := settings.Parse(fs, args, envPrefix, allFlags()...); err != nil {
		if errors.Is(err, settings.ErrHelp) {
			return settings.Usage(fs, out, envPrefix, benchSummary)
		}
		return err
	}
	if o.list {
		return listScenarios(out)
	}
	c, err := o.config(out)
	if err != nil {
		return err
	}
	if c.Schedd, c.Agent, err = bench.Programs(); err != nil {
		return fmt.Errorf("%w: %w", errUnmeasured, err)
	}
	r, err := bench.Run(ctx, c)
	if len(r.Results) == 0 && err != nil {
		return fmt.Errorf("%w: %w", errUnmeasured, err)
	}
	err = untidy(err)
	if o.json != "" {
		err = errors.Join(err, writeFigures(o.json, r))
	}
	if ctx.Err() != nil {
		return errors.Join(fmt.Errorf("%w: it was stopped before its end", errUnmeasured), err)
	}
	return errors.Join(benchVerdict(r), err)
}

// errUnmeasured is why a benchmark has no figures, or not all.
var errUnmeasured = errors.New("not measured")

// config is what the settings ask for.
func (o *benchOptions) config(out io.Writer) (c bench.Config, err error) {
	c = bench.Config{Dir: o.dir, Effects: o.effects, Quick: o.quick, Out: out}
	var faults []error
	if o.server != "" {
		for address := range strings.SplitSeq(o.server, ",") {
			faults = append(faults, mayCall(address, o.insecure))
			c.Servers = append(c.Servers, address)
		}
	}
	if o.effects != "" && o.server == "" {
		faults = append(faults, errors.New("--effects: without --server there is a directory for that already"))
	}
	if o.effects != "" && !filepath.IsAbs(o.effects) {
		faults = append(faults, fmt.Errorf("--effects: %q is not absolute, and workers have other working directories", o.effects))
	}
	if c.Dir != "" {
		c.Dir, err = filepath.Abs(c.Dir)
		faults = append(faults, err)
	}
	c.Scenarios, err = choose(o.scenarios)
	if err = errors.Join(append(faults, err)...); err != nil {
		return c, settings.Errorf("%w", err)
	}
	return c, nil
}

// choose returns the scenarios of these names, in the order in which all are run; all
// of them when none is named.
func choose(names string) ([]bench.Scenario, error) {
	all := bench.Scenarios()
	if names == "" {
		return all, nil
	}
	wanted := strings.Split(names, ",")
	var known, chosen []string
	for _, s := range all {
		known = append(known, s.Name)
	}
	for _, name := range wanted {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("--scenario: there is no %q, but %s", name, strings.Join(known, ", "))
		}
		chosen = append(chosen, name)
	}
	return slices.DeleteFunc(all, func(s bench.Scenario) bool { return !slices.Contains(chosen, s.Name) }), nil
}

func listScenarios(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, s := range bench.Scenarios() {
		where := "on clusters of its own"
		if s.Anywhere {
			where = "also with --server"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t(%s)\n", s.Name, s.What, where) // Flush tells
	}
	return w.Flush()
}

func writeFigures(name string, r report.Report) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = os.WriteFile(name, append(text, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("%w: write the figures: %w", errUnmeasured, err)
	}
	return nil
}

// benchVerdict is what to exit with.
func benchVerdict(r report.Report) error {
	var broken, unmeasured []error
	for _, result := range r.Results {
		for _, f := range result.Broken() {
			broken = append(broken, fmt.Errorf("%w: %s: %s: %v", errBroken, result.Scenario, f.Name, f.Value))
		}
		if result.Unmeasured != "" {
			unmeasured = append(unmeasured, fmt.Errorf("%w: %s: %s", errUnmeasured, result.Scenario, result.Unmeasured))
		}
	}
	return errors.Join(append(broken, unmeasured...)...)
}
