// Command schedd is a primary of schedd, the scheduler: alone, or with a worker
// beside it to try things out.
package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/schedd/schedd/proto/settings"
	"github.com/schedd/schedd/proto/slack"
)

const overview = `schedd runs jobs on time, on machines that it cannot reach.

Commands:
  dev           everything in one process on this machine: one primary, one worker
  serve         be a primary; serve --help lists its settings
  snapshot      save, restore or inspect the state of a group of primaries
  recover       go on after most primaries of a group are lost for good
  confirm-loss  say no more that records of runs are lost
  torture       harm a cluster on purpose, and tell whether it kept its promises
  bench         measure how fast it is here, beside what the machine does without it
  keygen        make a cluster key, on standard output
  version       say which version this is
`

// envPrefix begins the names of our environment variables.
const envPrefix = "SCHEDD"

func main() {
	_ = slack.Widen("serve", "dev") // where it can't be, all costs a little more
	err := run(settings.UntilSignal(), os.Args[1:], os.Stdout, os.Stderr)
	os.Exit(exitCode(err, settings.Report("schedd", err, os.Stderr)))
}

// exitUnjudged is what torture and bench exit with when no promise was broken, and they
// can't say that all is well, or how fast it is, either.
const exitUnjudged = 2

// exitCode is what to exit with, and usual what most commands would.
func exitCode(err error, usual int) int {
	if !errors.Is(err, errBroken) && (errors.Is(err, errUnjudged) || errors.Is(err, errUnmeasured) || errors.Is(err, errUntidy)) {
		return exitUnjudged
	}
	return usual
}

// run carries out one command.
func run(ctx context.Context, args []string, out, logs io.Writer) error {
	command, rest := "", []string(nil)
	if len(args) > 0 {
		command, rest = args[0], args[1:]
	}
	switch command {
	case "dev":
		return runDev(ctx, rest, out, logs)
	case "serve":
		return runServe(ctx, rest, out, logs)
	case "snapshot":
		return runSnapshot(ctx, rest, out)
	case "recover":
		return runRecover(rest, out, logs)
	case "confirm-loss":
		return runConfirm(ctx, rest, out, logs)
	case "torture":
		return runTorture(ctx, rest, out)
	case "bench":
		return runBench(ctx, rest, out)
	case "keygen":
		return printKey(rest, out)
	case "version":
		return printVersion(rest, out)
	case "help", "-h", "-help", "--help":
		_, err := io.WriteString(out, overview)
		return err
	case "":
		return settings.Errorf("give a command: dev, serve, snapshot, recover, confirm-loss, torture, bench, keygen or version; --help tells more")
	}
	return settings.Errorf("unknown command %q: there are dev, serve, snapshot, recover, confirm-loss, torture, bench, keygen and version; --help tells more", command)
}

// allFlags returns the settings of all commands: one environment serves them all.
func allFlags() []*flag.FlagSet {
	_, serve := serveFlags()
	_, dev := devFlags()
	_, again, _ := recoverFlags()
	_, _, confirm, _ := confirmFlags()
	_, save := snapshotFlags("save")
	_, torture := tortureFlags()
	_, bench := benchFlags()
	return []*flag.FlagSet{serve, dev, again, confirm, save, torture, bench}
}

// noArguments answers whoever gives arguments to a command that takes none.
func noArguments(command string, args []string, out io.Writer) error {
	if args[0] == "--help" || args[0] == "-h" {
		_, err := io.WriteString(out, overview)
		return err
	}
	return settings.Errorf("%s takes no arguments, got %q", command, args[0])
}

// keySize is the size of a cluster key in bytes.
const keySize = 32

// printKey is the command keygen.
func printKey(args []string, out io.Writer) error {
	if len(args) > 0 {
		return noArguments("keygen", args, out)
	}
	key := make([]byte, keySize)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("draw a key: %w", err)
	}
	_, err := fmt.Fprintln(out, base64.StdEncoding.EncodeToString(key))
	return err
}

// printVersion is the command version.
func printVersion(args []string, out io.Writer) error {
	if len(args) > 0 {
		return noArguments("version", args, out)
	}
	_, err := fmt.Fprintln(out, "schedd", settings.Version())
	return err
}
