package agent

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/schedd/schedd/agent/journal"
)

const (
	// hungAfter is how long the journal may take for a record before the disk counts as
	// hung.
	hungAfter = 10 * time.Second
	// troubleAgain is how often a disk that failed is tried.
	troubleAgain = 5 * time.Second
)

var (
	errFull = errors.New("the disk is full")
	errHung = fmt.Errorf("the disk has not answered for more than %v", hungAfter)
)

// Trouble returns why this worker takes no attempts at present, or "". What it can't
// put on record it could start twice, and what it has no room for is lost. What runs
// goes on, and is told as ever.
func (t *table) Trouble() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.trouble
}

// inTrouble has this worker take no attempts until its disk works again, and returns why.
func (t *table) inTrouble(err error) string {
	reason := troubleReason(err)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.trouble != "" || t.stopped {
		return reason
	}
	t.log.Error("THIS WORKER TAKES NO ATTEMPTS until its disk works again; have a look at it", "err", err)
	t.setTroubleLocked(reason)
	t.lives.Go(t.awaitDisk)
	return reason
}

func troubleReason(err error) string {
	reason := strings.ToValidUTF8(fmt.Sprintf("the worker's disk takes no records: %v", err), "?")
	return reason[:min(len(reason), maxReason)]
}

// setTroubleLocked tells all sessions.
func (t *table) setTroubleLocked(reason string) {
	t.trouble = reason
	for box := range t.boxes {
		box.AskInventory()
	}
}

// awaitDisk tries the disk until it works again. The reason is kept up to date.
func (t *table) awaitDisk() {
	again := time.NewTicker(troubleAgain)
	defer again.Stop()
	for {
		select {
		case <-t.closing:
			return
		case <-again.C:
		}
		err := t.journal.Probe()
		if err == nil && t.spool.Full() {
			err = errFull
		}
		if t.noteDisk(err) {
			return
		}
	}
}

// noteDisk takes note of how it was to try the disk, and reports whether it works.
func (t *table) noteDisk(err error) (works bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.log.Info("the disk works again: this worker takes attempts")
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

// noteRecord puts a record in the journal that need not outlive a crash of the host.
func (t *table) noteRecord(rec journal.Record) error {
	return t.awaitJournal(t.journal.Note, []journal.Record{rec})
}

func (t *table) awaitJournal(put func(...journal.Record) error, recs []journal.Record) error {
	hung := time.AfterFunc(hungAfter, func() { t.inTrouble(errHung) })
	defer hung.Stop()
	return put(recs...)
}
