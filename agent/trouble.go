package agent

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/schedd/schedd/agent/journal"
	"github.com/schedd/schedd/agent/runner"
)

const (
	// hungAfter is how long the journal may take for a record before the disk counts as
	// hung.
	hungAfter = 10 * time.Second
	// troubleAgain is how often what failed is tried.
	troubleAgain = 5 * time.Second
)

var (
	errFull = errors.New("the disk is full")
	errHung = fmt.Errorf("the disk has not answered for more than %v", hungAfter)
)

// Trouble returns why this worker takes no attempts at present, or "". What it can't
// put on record it could start twice, what it has no room for is lost, and what it
// can't start another one may. What runs goes on, and is told as ever.
func (t *table) Trouble() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.troubleLocked()
}

// unfit has this worker take no attempts until its disk works again, and returns why.
func (t *table) unfit(err error) string { return t.inTrouble(ofDisk(err)) }

// unable has this worker take no attempts while its runner can start nothing, and returns
// why this one was not started. What keeps one attempt alone from it, such as a user who has
// all the processes that a user may have, keeps no other one away.
func (t *table) unable(err error) string {
	if general := t.runner.Probe(); general != nil {
		t.inTrouble(ofRunner(general))
	}
	return err.Error()
}

func ofDisk(err error) error   { return fmt.Errorf("the worker's disk takes no records: %w", err) }
func ofRunner(err error) error { return fmt.Errorf("%w: %w", runner.ErrUnable, err) }

// inTrouble has this worker take no attempts until all that they need works, and returns
// why.
func (t *table) inTrouble(err error) string {
	reason := troubleReason(err)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.trouble != "" || t.stopped {
		return reason
	}
	t.log.Error("THIS WORKER TAKES NO ATTEMPTS until what keeps it from that is mended; have a look at it", "err", err)
	t.setTroubleLocked(reason)
	t.lives.Go(t.awaitMending)
	return reason
}

func troubleReason(err error) string {
	reason := err.Error()
	return strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "?")
}

// setTroubleLocked tells all sessions.
func (t *table) setTroubleLocked(reason string) {
	t.trouble = reason
	for box := range t.boxes {
		box.AskInventory()
	}
}

// awaitMending tries what attempts need until it works again. The reason is kept up to
// date.
func (t *table) awaitMending() {
	again := time.NewTicker(troubleAgain)
	defer again.Stop()
	for {
		select {
		case <-t.closing:
			return
		case <-again.C:
		}
		if t.noteTry(t.try()) {
			return
		}
	}
}

// try does for nobody what an attempt needs to be taken, and returns why that fails.
func (t *table) try() error {
	if err := t.journal.Probe(); err != nil {
		return ofDisk(err)
	}
	if t.diskFull() {
		return ofDisk(errFull)
	}
	if err := t.spool.Probe(); err != nil {
		return ofDisk(err)
	}
	if err := t.runner.Probe(); err != nil {
		return ofRunner(err)
	}
	return nil
}

// diskFull tells whether the disk is full, and takes note of that for all that run now.
func (t *table) diskFull() bool {
	full := t.spool.Full()
	if full {
		t.fulls.Add(1)
	}
	return full
}

// noteTry takes note of what came of a try, and reports whether all is well.
func (t *table) noteTry(err error) (works bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.log.Info("what failed works again: this worker takes attempts")
		t.setTroubleLocked("")
		return true
	}
	if reason := troubleReason(err); reason != t.trouble {
		t.setTroubleLocked(reason)
	}
	return false
}

// appendRecord puts records in the journal, on the disk. While that does not answer, no
// more attempts are taken.
func (t *table) appendRecord(recs ...journal.Record) error {
	return t.awaitJournal(t.journal.Append, recs)
}

// appendSoon is appendRecord for what may take a little longer.
func (t *table) appendSoon(rec journal.Record) error {
	return t.awaitJournal(t.journal.AppendSoon, []journal.Record{rec})
}

// noteRecord puts a record in the journal that need not outlive a crash of the host.
func (t *table) noteRecord(rec journal.Record) error {
	return t.awaitJournal(t.journal.Note, []journal.Record{rec})
}

// noteSoon is noteRecord for what may take a little longer.
func (t *table) noteSoon(rec journal.Record) error {
	return t.awaitJournal(t.journal.NoteSoon, []journal.Record{rec})
}

func (t *table) awaitJournal(put func(...journal.Record) error, recs []journal.Record) error {
	hung := time.AfterFunc(hungAfter, func() { t.unfit(errHung) })
	defer hung.Stop()
	return put(recs...)
}
