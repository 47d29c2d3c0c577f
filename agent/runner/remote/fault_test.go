package remote

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/agent/journal"
	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
)

// disk is a journal whose disk can be full.
type disk struct {
	mu   sync.Mutex // guards all below
	err  error
	kept []journal.Kind
}

func (d *disk) Note(recs ...journal.Record) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	for _, r := range recs {
		d.kept = append(d.kept, r.Kind)
	}
	return nil
}

func (d *disk) Sync() error  { return d.Note() }
func (d *disk) Probe() error { return d.Note() }
func (d *disk) Close() error { return nil }

func (d *disk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *disk) has(want ...journal.Kind) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Equal(d.kept, want)
}

// The runner's disk is full for a while. It says so, and puts on record what it could not
// as soon as it can: the start of what still runs, and the end of what has ended.
func TestRunnersDiskFills(t *testing.T) {
	for name, test := range map[string]struct {
		runs time.Duration
		full time.Duration
		want []journal.Kind // right after
	}{
		"while it runs":    {time.Hour, time.Minute, []journal.Kind{journal.Accepted}},
		"until it ended":   {time.Minute, 2 * time.Minute, []journal.Kind{journal.Accepted, journal.Exited}},
		"while it started": {10 * time.Millisecond, time.Minute, []journal.Kind{journal.Accepted, journal.Exited}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := new(disk)
				log := slog.New(slog.DiscardHandler)
				fake := fakerunner.New(func(runner.Spec) fakerunner.Behaviour { return fakerunner.Behaviour{Duration: test.runs} })
				k := newKeeper(log, fake, &book{log: log, journal: d})
				d.fail(syscall.ENOSPC)
				if _, err := k.start(asker{life: 0}, runner.Spec{ID: "a/1"}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(test.full)
				if why := k.book.trouble(); !strings.Contains(why, "no space left on device") {
					t.Errorf("it says %q", why)
				}
				d.fail(nil)
				time.Sleep(noteAgain)
				synctest.Wait()
				if why := k.book.trouble(); why != "" {
					t.Errorf("it still says %q", why)
				}
				if !d.has(test.want...) {
					t.Errorf("on record is %v, want %v", d.kept, test.want)
				}
				time.Sleep(time.Hour)
				if !d.has(journal.Accepted, journal.Exited) {
					t.Errorf("at the end on record is %v", d.kept)
				}
				close(k.over)
				k.rest()
			})
		})
	}
}

// An fsync of the runner's journal fails, which is the end of the journal. The runner says so
// for as long as it lives; what runs goes on, and how it ends is told from memory. The next
// runner keeps records again.
func TestRunnersDiskFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		fake := fakerunner.New(func(runner.Spec) fakerunner.Behaviour {
			return fakerunner.Behaviour{Duration: time.Minute, ExitCode: 3}
		})
		d := new(disk)
		k := newKeeper(log, fake, &book{log: log, journal: d})
		if _, err := k.start(asker{life: 0}, runner.Spec{ID: "a/1"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		d.fail(syscall.EIO)
		k.book.sync()
		for range 3 {
			time.Sleep(time.Hour)
			if why := k.book.trouble(); !strings.Contains(why, "input/output error") {
				t.Errorf("it says %q", why)
			}
		}
		k.mu.Lock()
		if a := k.attempts["a/1"]; a.exit == nil || a.exit.Code != 3 || a.written {
			t.Errorf("of the attempt it knows %+v", a)
		}
		k.mu.Unlock()
		close(k.over)
		k.rest()

		next := newKeeper(log, fake, &book{log: log, journal: new(disk)})
		if why := next.book.trouble(); why != "" {
			t.Errorf("the next runner says %q", why)
		}
	})
}
