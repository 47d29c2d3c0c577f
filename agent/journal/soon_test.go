package journal

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/agent/gather"
)

// What is in no hurry waits for company while there is much of it, and never for long.
// Whatever else is synced takes it along; what is only noted leaves it where it is.
func TestThoseInNoHurryShareAnFsync(t *testing.T) {
	soon := func(j *Journal, run string) error { return j.AppendSoon(rec(Accepted, run, 1)) }
	now := func(j *Journal, run string) error { return j.Append(rec(Accepted, run, 1)) }
	note := func(j *Journal, run string) error { return j.Note(rec(Accepted, run, 1)) }
	for _, c := range []struct {
		name   string
		idle   bool // nothing came shortly before
		before func(*Journal, string) error
		soon   int // calls that are in no hurry
		after  func(*Journal, string) error
		took   time.Duration // until all of them are on the disk
		syncs  int
	}{
		{name: "after a pause", idle: true, soon: 1, syncs: 1},
		{name: "one alone", soon: 1, took: gather.Longest, syncs: 1},
		{name: "some", soon: gather.Enough - 1, took: gather.Longest, syncs: 1},
		{name: "enough", soon: gather.Enough, syncs: 1},
		{name: "more than enough", soon: 3 * gather.Enough, syncs: 3},
		{name: "with one that is in a hurry", soon: 1, after: now, syncs: 1},
		{name: "with a note", soon: 1, after: note, took: gather.Longest, syncs: 1},
		{name: "after one that was in a hurry", before: now, soon: 1, took: gather.Longest, syncs: 2},
		{name: "until it is closed", soon: 1, after: func(j *Journal, _ string) error { return j.Close() }, syncs: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newMemDisk()
				j, _ := openMem(t, d)
				for i := range 2 * gather.Enough {
					appendAll(t, j, rec(Accepted, fmt.Sprint("former-", i), 1))
				}
				if c.idle {
					time.Sleep(time.Minute)
				}
				began, syncs := time.Now(), d.syncs
				var wg sync.WaitGroup
				call := func(add func(*Journal, string) error, run string) {
					wg.Go(func() {
						if err := add(j, run); err != nil {
							t.Errorf("accept %q: %v", run, err)
						}
					})
					synctest.Wait()
				}
				if c.before != nil {
					call(c.before, "before")
				}
				for i := range c.soon {
					call(soon, fmt.Sprint("soon-", i))
				}
				if c.after != nil {
					call(c.after, "after")
				}
				wg.Wait()
				if took := time.Since(began); took != c.took || d.syncs-syncs != c.syncs {
					t.Errorf("it took %v and %d fsyncs, want %v and %d", took, d.syncs-syncs, c.took, c.syncs)
				}
				again, _ := openMem(t, d.crash(func(int) int { return 0 }))
				for i := range c.soon {
					if run := fmt.Sprint("soon-", i); again.table.entries[Key{run, 1}] == nil {
						t.Errorf("%q was lost in a crash", run)
					}
				}
			})
		})
	}
}

// Who comes while the disk is busy, and is in no hurry, goes with those who wait for it.
func TestNoHurryBehindABusyDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk()
		j, _ := openMem(t, d)
		for i := range 2 * gather.Enough {
			appendAll(t, j, rec(Accepted, fmt.Sprint("former-", i), 1))
		}
		free := make(chan struct{})
		d.gate = func(string) { <-free }
		began, syncs := time.Now(), d.syncs
		var wg sync.WaitGroup
		for i, add := range []func(...Record) error{j.Append, j.Append, j.AppendSoon} {
			wg.Go(func() {
				if err := add(rec(Accepted, fmt.Sprint("run-", i), 1)); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		close(free)
		wg.Wait()
		if took := time.Since(began); took > 0 || d.syncs-syncs != 2 {
			t.Errorf("it took %v and %d fsyncs, want 0s and 2", took, d.syncs-syncs)
		}
	})
}

// Notes that nobody waits for share a write while there are many of them, are never late, and
// cost no fsync. What is synced takes them along, and they do not hurry what waits for that.
func TestNotesInNoHurryShareAWrite(t *testing.T) {
	synced := func(j *Journal, run string) error { return j.Append(rec(Accepted, run, 1)) }
	soon := func(j *Journal, run string) error { return j.AppendSoon(rec(Accepted, run, 1)) }
	for _, c := range []struct {
		name          string
		idle          bool // nothing came shortly before
		notes         int
		with          func(*Journal, string) error // called before the last of them
		took          time.Duration                // until all are written
		writes, syncs int
	}{
		{name: "after a pause", idle: true, notes: 1, writes: 1},
		{name: "one alone", notes: 1, took: gather.Longest, writes: 1},
		{name: "some", notes: gather.Enough - 1, took: gather.Longest, writes: 1},
		{name: "enough", notes: gather.Enough, writes: 1},
		{name: "more than enough", notes: 3 * gather.Enough, writes: 3},
		{name: "with one that is synced", notes: 2, with: synced, took: gather.Longest, writes: 2, syncs: 1},
		{name: "beside one that waits for company", notes: gather.Enough, with: soon, took: gather.Longest, writes: 2, syncs: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newMemDisk()
				j, _ := openMem(t, d)
				for i := range 2 * gather.Enough {
					appendAll(t, j, rec(Accepted, fmt.Sprint("former-", i), 1))
					if err := j.NoteSoon(rec(Exited, fmt.Sprint("former-", i), 1)); err != nil {
						t.Fatal(err)
					}
				}
				if c.idle {
					time.Sleep(time.Minute)
				}
				began, writes, syncs := time.Now(), d.writes, d.syncs
				var wg sync.WaitGroup
				call := func(add func() error) {
					wg.Go(func() {
						if err := add(); err != nil {
							t.Error(err)
						}
					})
					synctest.Wait()
				}
				for i := range c.notes {
					if c.with != nil && i == c.notes-1 {
						call(func() error { return c.with(j, "other") })
					}
					call(func() error { return j.NoteSoon(rec(Accepted, fmt.Sprint("note-", i), 1)) })
				}
				wg.Wait()
				if took := time.Since(began); took != c.took || d.writes-writes != c.writes || d.syncs-syncs != c.syncs {
					t.Errorf("it took %v, %d writes and %d fsyncs, want %v, %d and %d", took, d.writes-writes, d.syncs-syncs, c.took, c.writes, c.syncs)
				}
			})
		})
	}
}
