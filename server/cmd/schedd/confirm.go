package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"

	"github.com/schedd/schedd/proto/settings"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/server/history"
)

const confirmSummary = `schedd confirm-loss --data-dir DIR [--dry-run] [flags]

Confirm that runs are lost, of which this primary tells that no primary may have their
records. It tells no more of it then: NOT_FOUND is the answer for a run that it does not
find, and the output of such runs is removed. The primary has to be stopped. The settings
of serve are understood as well, so that its file can be given.`

// confirmFlags returns the settings of serve, which say where the primary is, the flags
// that change them, and those among them that matter.
func confirmFlags() (o *options, dryRun *bool, fs, matter *flag.FlagSet) {
	o, fs = serveFlags()
	dryRun = fs.Bool("dry-run", false, "only look at the data, and say what is lost")
	matter = flag.NewFlagSet("schedd confirm-loss", flag.ContinueOnError)
	for _, name := range []string{"config", "data-dir", "dry-run"} {
		f := fs.Lookup(name)
		matter.Var(f.Value, f.Name, f.Usage)
	}
	return o, dryRun, fs, matter
}

// runConfirm is the command confirm-loss.
func runConfirm(ctx context.Context, args []string, out, logs io.Writer) error {
	o, dryRun, fs, matter := confirmFlags()
	if err := settings.Parse(fs, args, envPrefix, allFlags()...); err != nil {
		if errors.Is(err, settings.ErrHelp) {
			return settings.Usage(matter, out, envPrefix, confirmSummary)
		}
		return err
	}
	log, err := settings.Logger(logs, o.log.level, o.log.format)
	if err != nil {
		return err
	}
	dir := filepath.Join(o.DataDir, "history")
	return raftstore.WhileStopped(filepath.Join(o.DataDir, "raft"), func() error {
		lost, err := history.Lost(ctx, dir)
		if err == nil {
			err = tellLost(out, lost)
		}
		if err != nil || *dryRun || len(lost) == 0 {
			return err
		}
		if err := history.ConfirmLoss(ctx, dir); err != nil {
			return err
		}
		for _, g := range lost {
			log.Warn("it was confirmed that runs are lost", "ended", g.String(), "history", dir)
		}
		_, err = fmt.Fprintln(out, "Confirmed. Start the primary: it says NOT_FOUND of what it does not find, and removes\n"+
			"what these runs have printed within some two hours. In a group, do this on each\n"+
			"primary whose schedd_history_gaps_lost is above 0.")
		return err
	})
}

// tellLost says of which runs the records are lost.
func tellLost(out io.Writer, lost []history.Gap) error {
	if len(lost) == 0 {
		_, err := fmt.Fprintln(out, "Nothing is lost, as far as this primary knows.")
		return err
	}
	_, err := fmt.Fprintln(out, "No primary may have all runs that ended")
	for _, g := range lost {
		if err == nil {
			_, err = fmt.Fprintf(out, "  %s\n", g)
		}
	}
	return err
}
