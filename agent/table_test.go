package agent

import (
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/schedd/schedd/agent/journal"
	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	"github.com/schedd/schedd/agent/session"
	"github.com/schedd/schedd/agent/spool"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// disk is a journal whose disk can be made to fail.
type disk struct {
	mu      sync.Mutex    // guards all below
	err     error         // of the next calls
	answers chan struct{} // what calls wait for; nil: nothing
	records []journal.Record
}

func (d *disk) Append(recs ...journal.Record) error {
	d.mu.Lock()
	answers := d.answers
	d.mu.Unlock()
	if answers != nil {
		<-answers
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	d.records = append(d.records, recs...)
	return nil
}

func (d *disk) AppendSoon(recs ...journal.Record) error { return d.Append(recs...) }

func (d *disk) Note(recs ...journal.Record) error { return d.Append(recs...) }

func (d *disk) NoteSoon(recs ...journal.Record) error { return d.Append(recs...) }

func (d *disk) Probe() error { return d.Append() }

// hang has calls wait until the disk answers.
func (d *disk) hang() (answer func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := make(chan struct{})
	d.answers = c
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.answers = nil
		close(c)
	}
}

func (d *disk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// kinds returns the steps on record of one run.
func (d *disk) kinds(run string) (kinds []journal.Kind) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.records {
		if r.Key.Run == run {
			kinds = append(kinds, r.Kind)
		}
	}
	return kinds
}

// inTable runs a test in a bubble with a table without sessions, whose attempts
// run for a minute.
func inTable(t *testing.T, f func(*testing.T, *table, *disk, *fakerunner.Fake)) {
	inTableOn(t, spool.Disk{}, f)
}

// inTableOn is inTable with logs on another disk than usual.
func inTableOn(t *testing.T, under spool.Disk, f func(*testing.T, *table, *disk, *fakerunner.Fake)) {
	synctest.Test(t, func(t *testing.T) {
		logs, err := spool.OpenOn(under, t.TempDir(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		host := fakerunner.New(func(runner.Spec) fakerunner.Behaviour {
			return fakerunner.Behaviour{Duration: time.Minute, Output: []fakerunner.Chunk{{Data: []byte("hello")}}}
		})
		d := new(disk)
		table := newTable(slog.New(slog.DiscardHandler), d, logs, host)
		table.slots = 4
		f(t, table, d, host)
		table.stop()
		table.awaitEnds(t.Context())
		table.close()
		host.Close()
	})
}

func launchMessage(run string) *agentv1.GatewayMessage {
	return &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Launch{Launch: &agentv1.Launch{
		Key: &agentv1.AttemptKey{RunId: run, Attempt: 1}, Fence: 9,
		Task:        &agentv1.Task{Argv: []string{"true"}},
		StartWithin: durationpb.New(time.Minute),
	}}}
}

func ackMessage(run string, unwanted bool) *agentv1.GatewayMessage {
	return &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_ResultAck{ResultAck: &agentv1.ResultAck{
		Key: &agentv1.AttemptKey{RunId: run, Attempt: 1}, Fence: 9, Unwanted: unwanted,
	}}}
}

func resultOf(tb *table, run string) *agentv1.Result {
	return tb.Message(session.Key{Run: run, Attempt: 1}).GetResult()
}

// Without a journal nothing starts: who could tell after a crash that it did? The
// worker says so, takes nothing more, and takes attempts again when its disk works.
func TestFullDisk(t *testing.T) {
	for _, fault := range []error{syscall.ENOSPC, syscall.EROFS, syscall.EIO} {
		t.Run(fault.Error(), func(t *testing.T) {
			inTable(t, func(t *testing.T, tb *table, d *disk, host *fakerunner.Fake) {
				tb.Handle(launchMessage("r0"))
				synctest.Wait()
				d.fail(fault)
				tb.Handle(launchMessage("r1"))
				synctest.Wait()
				tb.Handle(launchMessage("r2"))
				synctest.Wait()
				for _, run := range []string{"r1", "r2"} {
					if r := resultOf(tb, run); r.GetOutcome() != agentv1.Outcome_OUTCOME_REFUSED || !strings.Contains(r.GetReason(), "the worker's disk takes no records: "+fault.Error()) {
						t.Errorf("result of %s: %v", run, r)
					}
				}
				if r := tb.Trouble(); !strings.Contains(r, fault.Error()) {
					t.Errorf("its trouble is %q", r)
				}
				time.Sleep(2 * time.Minute)
				if r := resultOf(tb, "r0"); r.GetOutcome() != agentv1.Outcome_OUTCOME_SUCCEEDED {
					t.Errorf("the result of what ran: %v", r)
				}
				d.fail(nil)
				time.Sleep(troubleAgain + time.Second)
				if r := tb.Trouble(); r != "" {
					t.Errorf("with a good disk its trouble is %q", r)
				}
				tb.Handle(launchMessage("r1")) // known: it was said that it did not start
				tb.Handle(launchMessage("r3"))
				synctest.Wait()
				tb.Handle(ackMessage("r1", false))
				synctest.Wait()
				tb.Handle(launchMessage("r1")) // forgotten, but for its tombstone
				synctest.Wait()
				if host.Starts("r1/1")+host.Starts("r2/1") != 0 || host.Starts("r3/1") != 1 {
					t.Errorf("r1 was started %d times, r2 %d times, r3 %d times", host.Starts("r1/1"), host.Starts("r2/1"), host.Starts("r3/1"))
				}
				if got := d.kinds("r1"); got != nil {
					t.Errorf("the journal has %v of r1", got)
				}
			})
		})
	}
}

// The disk hangs without an error. The worker notices, and takes nothing more.
func TestHungDisk(t *testing.T) {
	inTable(t, func(t *testing.T, tb *table, d *disk, host *fakerunner.Fake) {
		answer := d.hang()
		tb.Handle(launchMessage("r1"))
		time.Sleep(hungAfter + time.Second)
		tb.Handle(launchMessage("r2"))
		synctest.Wait()
		if r := resultOf(tb, "r2"); r.GetOutcome() != agentv1.Outcome_OUTCOME_REFUSED || !strings.Contains(r.GetReason(), "has not answered") {
			t.Errorf("result: %v", r)
		}
		if r := tb.Trouble(); !strings.Contains(r, "has not answered") || host.Starts("r1/1") != 0 {
			t.Errorf("its trouble is %q, and r1 was started %d times", r, host.Starts("r1/1"))
		}
		answer()
		time.Sleep(troubleAgain + time.Second)
		if r := tb.Trouble(); r != "" || host.Starts("r1/1") != 1 {
			t.Errorf("once it answers: trouble %q, r1 was started %d times", r, host.Starts("r1/1"))
		}
	})
}

// The disk fills up while an attempt runs. Its result is told, and put on record
// when there is room.
func TestDiskFullAtTheEnd(t *testing.T) {
	inTable(t, func(t *testing.T, tb *table, d *disk, _ *fakerunner.Fake) {
		tb.Handle(launchMessage("r1"))
		tb.Handle(launchMessage("r2"))
		time.Sleep(pollLeast)
		synctest.Wait()
		d.fail(syscall.ENOSPC)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		for _, run := range []string{"r1", "r2"} {
			if r := resultOf(tb, run); r.GetOutcome() != agentv1.Outcome_OUTCOME_SUCCEEDED {
				t.Errorf("result of %s: %v", run, r)
			}
		}
		d.fail(nil)
		tb.Handle(ackMessage("r1", true))
		time.Sleep(time.Minute)
		synctest.Wait()
		for run, want := range map[string][]journal.Kind{
			"r1": {journal.Accepted, journal.Started, journal.Exited, journal.Acked},
			"r2": {journal.Accepted, journal.Started, journal.Exited},
		} {
			if got := d.kinds(run); !slices.Equal(got, want) {
				t.Errorf("of %s the journal has %v, want %v", run, got, want)
			}
		}
	})
}

// What the journal can't vouch for is not started, and not said to be unstarted
// either.
func TestDamagedJournal(t *testing.T) {
	inTable(t, func(t *testing.T, tb *table, d *disk, host *fakerunner.Fake) {
		d.fail(journal.ErrUncertain)
		tb.Handle(launchMessage("r1"))
		d.fail(journal.ErrUncertain)
		synctest.Wait()
		if r := resultOf(tb, "r1"); r.GetOutcome() != agentv1.Outcome_OUTCOME_INTERRUPTED || host.Starts("r1/1") != 0 {
			t.Errorf("result: %v", r)
		}
		d.fail(errors.Join(journal.ErrExists))
		tb.Handle(launchMessage("r2"))
		synctest.Wait()
		if m := tb.Message(session.Key{Run: "r2", Attempt: 1}); m != nil || host.Starts("r2/1") != 0 {
			t.Errorf("an attempt that was acknowledged before is answered with %v", m)
		}
	})
}

// The leader's state was restored, and comes again to an attempt that this worker
// has carried out. It is not done again, and the leader does not wait for it.
func TestAttemptOfAnOlderFence(t *testing.T) {
	inTable(t, func(t *testing.T, tb *table, d *disk, host *fakerunner.Fake) {
		d.fail(errors.Join(journal.ErrFence, journal.ErrExists))
		tb.Handle(launchMessage("r1"))
		tb.Handle(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Kill{Kill: &agentv1.Kill{
			Key: &agentv1.AttemptKey{RunId: "r2", Attempt: 1}, Fence: 9,
		}}})
		synctest.Wait()
		if r := resultOf(tb, "r1"); r.GetOutcome() != agentv1.Outcome_OUTCOME_INTERRUPTED || r.GetFence() != 9 || !strings.Contains(r.GetReason(), "has carried out attempt 1 of this run before") {
			t.Errorf("launched: result %v", r)
		}
		if r := resultOf(tb, "r2"); r.GetOutcome() != agentv1.Outcome_OUTCOME_NOT_STARTED || r.GetFence() != 9 {
			t.Errorf("killed: result %v", r)
		}
		if host.Starts("r1/1") != 0 || len(d.kinds("r1"))+len(d.kinds("r2")) != 0 {
			t.Error("it was started, or is on record anew")
		}
	})
}

// A leader gone mad does not take the host with it.
func TestTooManyLaunches(t *testing.T) {
	inTable(t, func(t *testing.T, tb *table, _ *disk, host *fakerunner.Fake) {
		most := tb.mostOpen()
		for i := range most + 5 {
			tb.Handle(launchMessage("r" + strings.Repeat("x", i%60) + strings.Repeat("y", i/60)))
		}
		synctest.Wait()
		if n := len(host.Running()); n != most {
			t.Errorf("%d attempts run, want %d", n, most)
		}
		refused := 0
		for _, a := range tb.Inventory() {
			if a.GetPhase() == agentv1.AttemptPhase_ATTEMPT_PHASE_ENDED {
				refused++
			}
		}
		if refused != 5 {
			t.Errorf("%d attempts were refused, want 5", refused)
		}
	})
}

// Tombstones have a bound, oldest first.
func TestTombs(t *testing.T) {
	var g tombs
	for i := range uint32(journal.Tombstones + 10) {
		g.add(session.Key{Run: "r", Attempt: i}, 7)
	}
	if len(g.known) != journal.Tombstones || len(g.order) != journal.Tombstones {
		t.Errorf("%d tombstones in %d places", len(g.known), len(g.order))
	}
	if g.has(session.Key{Run: "r", Attempt: 9}, 7) || !g.has(session.Key{Run: "r", Attempt: 10}, 7) {
		t.Error("not the oldest were forgotten")
	}
	k := session.Key{Run: "r", Attempt: 100}
	if g.has(k, 8) || !g.has(k, 6) {
		t.Error("an attempt with a newer fence was not refused before, and one with an older was")
	}
	if g.add(k, 8); !g.has(k, 8) || len(g.order) != journal.Tombstones {
		t.Errorf("refused again: %v, in %d places", g.has(k, 8), len(g.order))
	}
}

// Whatever a damaged journal holds of an attempt, the attempt is known, and one
// with an end has a result that can be sent.
func FuzzRecall(f *testing.F) {
	f.Add([]byte(`{"boot":"b","job":"default/nightly"}`), []byte{10, 0}, []byte{24, 1}, true)
	f.Add([]byte(`{`), []byte{255}, []byte("x"), true)
	f.Fuzz(func(t *testing.T, accepted, started, exited []byte, ended bool) {
		e := journal.Entry{
			Key: journal.Key{Run: "r1", Attempt: 1}, Fence: 9,
			Accepted: &journal.Record{Payload: accepted}, Started: &journal.Record{Payload: started},
		}
		if ended {
			e.Exited = &journal.Record{Payload: exited}
		}
		a := newAttempt(session.Key(e.Key), e.Fence)
		recall(a, e)
		switch {
		case ended != (a.result != nil):
			t.Errorf("ended is %v, result %v", ended, a.result)
		case ended && (a.result.GetOutcome() == 0 || a.phase != agentv1.AttemptPhase_ATTEMPT_PHASE_ENDED):
			t.Errorf("result %v in phase %v", a.result, a.phase)
		}
	})
}

// The runner can start nothing, for a reason that is the worker's own. No attempt fails by
// that: they are refused, and the worker says why and takes none until something could be
// started.
func TestRunnerCanStartNothing(t *testing.T) {
	inTable(t, func(t *testing.T, tb *table, _ *disk, host *fakerunner.Fake) {
		host.SetUnable(syscall.EAGAIN)
		tb.Handle(launchMessage("r1"))
		synctest.Wait()
		tb.Handle(launchMessage("r2"))
		time.Sleep(time.Minute)
		for _, run := range []string{"r1", "r2"} {
			if r := resultOf(tb, run); r.GetOutcome() != agentv1.Outcome_OUTCOME_REFUSED || !strings.Contains(r.GetReason(), syscall.EAGAIN.Error()) {
				t.Errorf("result of %s: %v", run, r)
			}
		}
		if r := tb.Trouble(); !strings.Contains(r, "can't start anything") || !strings.Contains(r, syscall.EAGAIN.Error()) {
			t.Errorf("its trouble is %q", r)
		}
		if host.Starts("r2/1") != 0 {
			t.Error("one was tried while it was in trouble")
		}
		host.SetUnable(nil)
		time.Sleep(troubleAgain + time.Second)
		if r := tb.Trouble(); r != "" {
			t.Errorf("once it can, its trouble is %q", r)
		}
		tb.Handle(launchMessage("r3"))
		time.Sleep(2 * time.Minute)
		if r := resultOf(tb, "r3"); r.GetOutcome() != agentv1.Outcome_OUTCOME_SUCCEEDED {
			t.Errorf("then the result of one is %v", r)
		}
	})
}

// What keeps one attempt alone from being started, such as the limits of its user, is
// neither its fault nor one that keeps others away.
func TestOneCanNotBeStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs, err := spool.Open(t.TempDir(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		host := fakerunner.New(func(s runner.Spec) (b fakerunner.Behaviour) {
			switch s.ID {
			case "r1/1":
				b.StartError = runner.Unable(syscall.EAGAIN)
			case "r2/1":
				b.StartError = syscall.ENOENT
			}
			return b
		})
		tb := newTable(slog.New(slog.DiscardHandler), new(disk), logs, host)
		tb.slots = 4
		for run, want := range map[string]agentv1.Outcome{
			"r1": agentv1.Outcome_OUTCOME_REFUSED, "r2": agentv1.Outcome_OUTCOME_NOT_STARTED, "r3": agentv1.Outcome_OUTCOME_SUCCEEDED,
		} {
			tb.Handle(launchMessage(run))
			time.Sleep(time.Minute)
			if r := resultOf(tb, run); r.GetOutcome() != want {
				t.Errorf("result of %s: %v", run, r)
			}
			if r := tb.Trouble(); r != "" {
				t.Errorf("after %s its trouble is %q", run, r)
			}
		}
		tb.stop()
		tb.close()
		host.Close()
	})
}

// The file of an attempt that printed nothing is that of the next one only if its end is on
// record: otherwise both would have it there, and nobody could tell later whose it is.
func TestFileIsUsedAgainWhenTheEndIsOnRecord(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("use files again: here nobody can tell who has one open")
	}
	for _, fault := range []error{nil, syscall.EIO} {
		synctest.Test(t, func(t *testing.T) {
			logs, err := spool.Open(t.TempDir(), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			host := fakerunner.New(func(runner.Spec) fakerunner.Behaviour { return fakerunner.Behaviour{Duration: time.Second} })
			d := new(disk)
			tb := newTable(slog.New(slog.DiscardHandler), d, logs, host)
			tb.slots = 4
			tb.Handle(launchMessage("r1"))
			synctest.Wait()
			d.fail(fault)
			time.Sleep(2 * time.Second)
			tb.Handle(ackMessage("r1", false))
			synctest.Wait()
			if again := logs.Reserve() != ""; again != (fault == nil) {
				t.Errorf("with a disk that says %v its file is used again: %v", fault, again)
			}
			tb.stop()
			tb.close()
			host.Close()
		})
	}
}

// A run has a name that the gateway knows as one.
func TestRunNames(t *testing.T) {
	for name, is := range map[string]bool{
		"a": true, "0-z": true, strings.Repeat("a", 64): true,
		"": false, strings.Repeat("a", 65): false, "A": false, "a b": false, "a/b": false, "ä": false, "a\n": false, "a\x00b": false,
	} {
		if isRunName(name) != is {
			t.Errorf("%q is a name: %v, want %v", name, !is, is)
		}
	}
}
