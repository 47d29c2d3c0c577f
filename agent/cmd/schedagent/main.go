// Command schedagent is a worker: it dials out to the primaries of schedd, runs
// what they ask for, and tells them how it went.
//
// It listens only where it is told to, for primaries that dial it, and never
// prints but for help, its version and the one line that says why it ended. Its
// story is in its log, on standard error.
package main

import (
	"context"
	"io"
	"os"
	"runtime/debug"

	"github.com/schedd/schedd/proto/settings"
	"github.com/schedd/schedd/proto/slack"
)

// gcPercent has the garbage of a few hundred starts gather before it is collected: of a
// heap as small as a worker's, Go by itself would collect it after each few dozen, which
// is a tenth of what a start costs. It takes some 12 MB of memory.
const gcPercent = 400

func main() {
	_ = slack.Widen("run", "runner") // where it can't be, all costs a little more
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	err := run(settings.UntilSignal(), os.Args[1:], os.Stdout, os.Stderr)
	os.Exit(settings.Report("schedagent", err, os.Stderr))
}

// run carries out one command.
func run(ctx context.Context, args []string, out, logs io.Writer) error {
	command, rest := "", []string(nil)
	if len(args) > 0 {
		command, rest = args[0], args[1:]
	}
	switch command {
	case "run":
		return runWorker(ctx, rest, out, logs)
	case "runner":
		return beRunner(ctx, rest, out, logs)
	case "stop":
		return stopWorker(ctx, rest, out)
	case "version":
		return printVersion(rest, out)
	case "help", "-h", "-help", "--help":
		_, err := io.WriteString(out, overview)
		return err
	case "":
		return settings.Errorf("give a command: run, runner, stop or version; --help tells more")
	}
	return settings.Errorf("unknown command %q: there are run, runner, stop and version; --help tells more", command)
}
