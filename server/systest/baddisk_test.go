package systest

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/server"
)

// hang has the disk of a primary's log answer nobody, until it is asked to.
func (m *member) hang() (answer func()) {
	answers := make(chan struct{})
	m.disk.BeforeWrite(func() { <-answers })
	return sync.OnceFunc(func() {
		m.disk.BeforeWrite(nil)
		close(answers)
	})
}

// newBadDiskWorld starts three primaries, and workers with a job that is due each 15 s.
func newBadDiskWorld(w *world) {
	w.startGroup(3)
	for i := range 3 {
		w.startWorker(fmt.Sprint("shop-", i), nil, 10)
	}
	w.awaitOnline()
	w.does("j", talker(10*time.Second, time.Second))
	w.define(job("j", every(15*time.Second), overlapAllowed))
	w.wait(time.Minute)
}

// The disk of the leader hangs, without an error. It steps down, another one leads, and
// nothing that was due is missing or late by more than that takes.
func TestLeadersDiskHangs(t *testing.T) {
	story(t, func(w *world) {
		newBadDiskWorld(w)
		l := w.awaitLeader()
		answer := l.hang()
		defer answer()
		w.wait(time.Minute)
		now := w.awaitLeader()
		if now == l {
			t.Errorf("%s still leads, with a disk that hangs", l.id)
		}
		balanced := w.primary
		w.primary = now.own // people are led past the one that is not ready
		if l.ready() {
			t.Errorf("%s is ready, with a disk that hangs", l.id)
		}
		before := len(w.runsOf("j"))
		w.wait(2 * time.Minute)
		if n := len(w.runsOf("j")) - before; n < 7 {
			t.Errorf("%d runs in two minutes, want 8", n)
		}
		w.primary = balanced
		answer()
		w.await(l.id+" is ready again", time.Minute, l.ready)
		w.wait(time.Minute)
		w.settle(time.Hour)
		w.checkEverywhere()
		w.all(w.runsOf("j"), phaseSucceeded)
	})
}

// The disks of two primaries of three are full, so nothing can be agreed on. What runs
// goes on, nothing is acknowledged, and all is there when there is room.
func TestMostDisksFill(t *testing.T) {
	story(t, func(w *world) {
		newBadDiskWorld(w)
		for _, m := range w.group[:2] {
			m.disk.Fail(syscall.ENOSPC)
			w.net.troubles.begins("full", m.host, "")
		}
		w.wait(3 * time.Minute)
		for _, m := range w.group[:2] {
			if m.ready() {
				t.Errorf("%s is ready, with a full disk", m.id)
			}
		}
		for _, m := range w.group {
			ctx, cancel := context.WithTimeout(w.Context(), 20*time.Second)
			r, err := m.own.jobs.PutJob(ctx, &schedv1.PutJobRequest{Job: job("k")})
			cancel()
			if err == nil {
				t.Errorf("%s acknowledges, with the disks of most full: %v", m.id, r)
			}
		}
		if l := w.leader(); l != nil {
			t.Errorf("%s leads, with the disks of most full", l.id)
		}
		for _, m := range w.group[:2] {
			m.disk.Fail(nil)
			w.net.troubles.ends("full", m.host, "")
		}
		w.awaitLeader()
		w.wait(2 * time.Minute)
		w.settle(time.Hour)
		w.checkEverywhere()
	})
}

// The journal of the only worker has no room. The worker says so and is given nothing; what
// runs on it ends, and is told. When there is room it takes runs again.
func TestWorkersJournalFills(t *testing.T) {
	story(t, func(w *world) {
		k := shop(w)
		w.takes("j", 2*time.Minute)
		w.define(job("j", overlapAllowed))
		running := w.run("j")
		w.wait(5 * time.Second)
		k.files.fill()
		waiting := w.run("j")
		w.wait(20 * time.Second)
		if told := w.known(k.name).GetTrouble(); !strings.Contains(told, syscall.ENOSPC.Error()) {
			t.Errorf("people learn %q", told)
		}
		w.awaitPhase(running.GetId(), 5*time.Minute, phaseSucceeded)
		w.awaitPhase(waiting.GetId(), time.Second, schedv1.Phase_PHASE_PENDING)
		k.files.free()
		w.awaitPhase(waiting.GetId(), 5*time.Minute, phaseSucceeded)
		if told := w.known(k.name).GetTrouble(); told != "" {
			t.Errorf("once there is room, people learn %q", told)
		}
		w.check()
	})
}

// A bit of a primary's log is flipped. It does not start on that, says what to do, and
// after that has been done it has what the others have.
func TestFlippedLogOfAPrimary(t *testing.T) {
	story(t, func(w *world) {
		newBadDiskWorld(w)
		m := w.group[1]
		m.kill()
		if !m.disk.Flip(3) {
			t.Fatal("there is no entry")
		}
		c := server.DefaultConfig()
		c.NodeID, c.DataDir, c.Insecure = m.id, m.dir, true
		_, err := server.Open(c, server.Seams{Memory: m.disk, Listen: func(string) (net.Listener, error) {
			return w.net.listen(port{m.host, apiPort}), nil
		}})
		if err == nil {
			t.Fatal("it starts on a damaged log")
		}
		for _, want := range []string{"the log is damaged: entry", "remove it from the group, and let it join with an empty data directory"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("it says %q, and not %q", err, want)
			}
		}
		m.wipe()
		m.start()
		w.replace(m)
		w.wait(time.Minute)
		w.settle(time.Hour)
		w.checkEverywhere()
		w.all(w.runsOf("j"), phaseSucceeded)
	})
}

// tear leaves bytes behind the end of each file below dir that match takes: what was
// being written when the power failed, and nobody was told about.
func tear(dice *rand.Rand, dir string, match func(name string) bool) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !match(d.Name()) {
			return err
		}
		torn := make([]byte, 1+dice.IntN(300))
		if dice.IntN(2) == 0 { // else zeros: the size came to the disk before the data
			for i := range torn {
				torn[i] = byte(dice.Uint32())
			}
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = f.Write(torn)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		return err
	})
}

// tornLogs kills a primary amid its writes of output.
func (c *groupChaos) tornLogs(m *member) {
	m.kill()
	if err := tear(c.dice, filepath.Join(m.dir, "runlogs"), func(name string) bool { return strings.HasSuffix(name, ".log") }); err != nil {
		c.Fatalf("tearing the logs of %s: %v", m.id, err)
	}
}

// tornJournal crashes a worker amid its writes.
func (c *chaos) tornJournal(k *worker) {
	if k.life == nil {
		return
	}
	k.crash()
	if err := tear(c.dice, k.dir, func(name string) bool { return name == "journal" }); err != nil {
		c.Fatalf("tearing the journal of %s: %v", k.name, err)
	}
}
