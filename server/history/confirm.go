package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Lost returns the times of which no primary may have all runs that ended in them, as the
// history in dir has it, of a primary that is stopped.
func Lost(ctx context.Context, dir string) (lost []Gap, err error) {
	err = whileClosed(ctx, dir, func(d *database) error {
		_, gaps, _, err := d.load(ctx)
		lost = slices.DeleteFunc(gaps, func(g Gap) bool { return !g.Lost })
		return err
	})
	return lost, err
}

// ConfirmLoss has the history in dir, of a primary that is stopped, say no more that runs
// are lost: what it does not have there has not been, and their output may go. What it may
// still be given by others it goes on to ask for.
func ConfirmLoss(ctx context.Context, dir string) error {
	return whileClosed(ctx, dir, func(d *database) error {
		_, gaps, _, err := d.load(ctx)
		if err != nil {
			return err
		}
		return d.update(ctx, func(tx *sql.Tx) error {
			w := newWriter(ctx, tx)
			defer w.close()
			w.setGaps(slices.DeleteFunc(gaps, func(g Gap) bool { return g.Lost }))
			return w.err
		})
	})
}

// whileClosed opens the file of a store that is closed, and calls f. It makes none.
func whileClosed(ctx context.Context, dir string, f func(*database) error) error {
	path := filepath.Join(dir, fileName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no history %s", path)
	}
	d, err := openDatabase(ctx, dir)
	if err != nil {
		return err
	}
	if err := errors.Join(f(d), d.close()); err != nil {
		return fmt.Errorf("the history %s: %w", path, err)
	}
	return nil
}
