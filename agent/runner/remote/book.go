package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/schedd/schedd/agent/journal"
	"github.com/schedd/schedd/agent/runner"
	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// book is what a runner must not forget when it dies: which attempts it has
// started, and how they ended. A disk that takes nothing any more keeps no attempt
// from ending: then it is told from memory.
type book struct {
	log     *slog.Logger
	journal memory
	boot    string

	mu    sync.Mutex
	fault error // of the last record that could not be kept; nil when the disk works
}

// put writes records down, and takes note of a disk that does not take them.
func (b *book) put(recs ...journal.Record) error {
	hung := time.AfterFunc(hungAfter, func() {
		b.setFault(fmt.Errorf("the disk has not answered for more than %v", hungAfter))
	})
	defer hung.Stop()
	err := b.journal.Note(recs...)
	if err != nil && !isRefused(err) {
		b.setFault(err)
	}
	return err
}

// isRefused reports whether the journal would refuse that on any disk, and at any time.
func isRefused(err error) bool {
	for _, refusal := range []error{journal.ErrOrder, journal.ErrExists, journal.ErrFence, journal.ErrUncertain, journal.ErrInvalid, journal.ErrClosed} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

func (b *book) setFault(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault = err
}

// trouble returns why records can't be kept at present, or "". A disk that has failed is
// tried.
func (b *book) trouble() string {
	b.mu.Lock()
	fault := b.fault
	b.mu.Unlock()
	if fault == nil {
		return ""
	}
	err := b.journal.Probe()
	b.setFault(err)
	if err == nil {
		b.log.Info("the disk takes records again")
		return ""
	}
	return fmt.Sprintf("the disk of the worker's runner takes no records: %v", err)
}

// memory is what a book needs of a journal.
type memory interface {
	Note(...journal.Record) error
	Sync() error
	Probe() error
	Close() error
}

// begun is what is kept of a start. The task is not: it may hold secrets.
type begun struct {
	Boot    string    `json:"boot,omitempty"` // of the host
	Marks   []string  `json:"marks"`          // of its processes' environment
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
}

// lost is an attempt that ran when a former runner died.
type lost struct {
	id      string
	pid     int
	started time.Time
	marks   []string
	strays  bool // processes of it may be left
	reason  string
}

// openBook returns what former runners have left, too.
func openBook(dir, boot string, log *slog.Logger) (b *book, ended map[string]runner.Exit, left []lost, err error) {
	j, entries, err := journal.Open(filepath.Join(dir, journalFile), log)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("open the runner's memory: %w", err)
	}
	b, ended = &book{log: log, journal: j, boot: boot}, map[string]runner.Exit{}
	for _, e := range entries {
		exit := new(runnerv1.Exit)
		if e.Exited != nil && proto.Unmarshal(e.Exited.Payload, exit) == nil {
			ended[e.Key.Run] = readExit(exit)
			continue
		}
		left = append(left, b.lostOf(e))
	}
	return b, ended, left, nil
}

// lostOf tells of an attempt of which there is no end on record.
func (b *book) lostOf(e journal.Entry) lost {
	l := lost{id: e.Key.Run, strays: true, reason: "the worker's runner died while it ran"}
	var was begun
	if e.Accepted == nil || json.Unmarshal(e.Accepted.Payload, &was) != nil {
		l.strays = false
		l.reason += ", and its record is damaged: processes that it left may still run"
		return l
	}
	l.pid, l.started, l.marks = was.PID, was.Started, was.Marks
	if was.Boot != "" && b.boot != "" && was.Boot != b.boot {
		l.strays, l.reason = false, "the host rebooted while it ran"
	}
	return l
}

// noteStart puts on record that an attempt runs, if it can. No crash of the host needs to
// leave it: nothing runs after that.
func (b *book) noteStart(a *kept, env []string) {
	payload, err := json.Marshal(begun{Boot: b.boot, Marks: runner.Marks(env), PID: a.pid, Started: a.started})
	if err == nil {
		err = b.put(record(journal.Accepted, a.id, payload))
	}
	if err != nil {
		b.log.Error("start is not on record; if the runner dies now, the agent alone knows of it", "attempt", a.id, "err", err)
	}
	a.noted = err == nil || isRefused(err)
}

// noteExit puts on record how an attempt ended, and that it was started, unless that
// is there. It reports whether that is done, or can't be.
func (b *book) noteExit(a *kept, exit runner.Exit) bool {
	var recs []journal.Record
	if !a.noted {
		recs = append(recs, record(journal.Accepted, a.id, nil))
	}
	payload, err := proto.Marshal(showExit(exit))
	if err == nil {
		err = b.put(append(recs, record(journal.Exited, a.id, payload))...)
	}
	if err != nil {
		b.log.Error("end is not on record; it is lost if the runner dies before the agent has it", "attempt", a.id, "err", err)
	}
	return err == nil || isRefused(err)
}

// sync has all that was noted outlive a crash of the host.
func (b *book) sync() {
	if err := b.journal.Sync(); err != nil {
		b.setFault(err)
		b.log.Error("ends are not on the disk; they are lost if the host crashes before the agent has them", "err", err)
	}
}

func (b *book) noteForgotten(ids []string) {
	var recs []journal.Record
	for _, id := range ids {
		recs = append(recs, record(journal.Acked, id, nil))
	}
	if err := b.put(recs...); err != nil {
		b.log.Warn("attempts stay on record until the agent comes again", "attempts", len(ids), "err", err)
	}
}

// record is one in the words of package journal, for which an attempt has a run
// and a number. Here its ID says both.
func record(kind journal.Kind, id string, payload []byte) journal.Record {
	return journal.Record{Kind: kind, Key: journal.Key{Run: id, Attempt: 1}, Time: time.Now(), Payload: payload}
}
