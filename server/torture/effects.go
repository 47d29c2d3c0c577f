package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/schedd/schedd/server/torture/verdict"
)

// readEffects reads what the processes of jobs wrote down. Anybody can make files in
// that directory, so nothing is read but plain files with the names of workers.
func (t *torture) readEffects(ctx context.Context, rec *verdict.Record) {
	if t.Effects == "" {
		return
	}
	unseen := func(err error) { rec.Unseen = append(rec.Unseen, fmt.Sprintf("read what jobs wrote down: %v", err)) }
	workers := workersOf(rec.Views)
	if s, err := t.look(ctx); err != nil {
		unseen(err)
	} else {
		for _, ids := range s.ids {
			for _, id := range ids {
				workers[id] = true
			}
		}
	}
	files, err := os.ReadDir(t.effectsDir())
	if err != nil {
		unseen(err)
	}
	for _, f := range files {
		if !workers[f.Name()] {
			unseen(fmt.Errorf("%q was not read: it has the name of no worker", filepath.Join(t.effectsDir(), f.Name())))
			continue
		}
		text, err := readPlain(filepath.Join(t.effectsDir(), f.Name()), mostEffects)
		if err != nil {
			unseen(err)
			continue
		}
		effects, unreadable := verdict.ReadEffects(f.Name(), string(text))
		rec.Effects, rec.Unreadable = append(rec.Effects, effects...), append(rec.Unreadable, unreadable...)
		rec.EffectsOf[f.Name()] = true
	}
	if t.Closed { // all workers are on this host
		for id := range workersOf(rec.Views) {
			rec.EffectsOf[id] = true
		}
	}
}

// workersOf are the ids of the workers that had attempts.
func workersOf(views []verdict.View) map[string]bool {
	ids := map[string]bool{}
	for _, v := range views {
		for _, r := range v.Runs {
			for _, a := range r.Attempts {
				ids[a.Worker] = true
			}
		}
	}
	delete(ids, "") // of an attempt that has none
	return ids
}

// mostEffects is more than a worker writes in [MaxFor]: some 12 MB, when it runs all.
const mostEffects = 256 << 20

// readPlain reads a file that somebody else may have put there. A link, which may lead
// to what is not his to read, a pipe, which may never end, and what has more bytes than
// given, are errors.
func readPlain(path string, most int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%q was not read: it is a link", path)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was read only
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !info.Mode().IsRegular() || ok && stat.Nlink > 1 {
		return nil, fmt.Errorf("%q was not read: it is no plain file with one name (%v)", path, info.Mode())
	}
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	if int64(len(text)) > most {
		return nil, fmt.Errorf("%q was not read: it has more than %d bytes", path, most)
	}
	return text, nil
}
