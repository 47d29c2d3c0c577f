package raftstore

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/schedd/schedd/raftstore/state"
)

// largeWorker is a command of about so many bytes, each in the place of the one before: the state
// stays small.
func largeWorker(n, bytes int) state.Command {
	return state.PutWorker{ID: "w", Says: state.WorkerInfo{Name: fmt.Sprintf("%06d", n) + strings.Repeat("x", bytes), Slots: 1}}
}

// Whatever is written, cut off at either end and written anew: what the log has is known,
// but for the entries of one stretch at each cut, and so is how many of the last are within
// some bytes.
func TestLogSizeIsKnown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		z := newLogSize()
		m := raft.NewInmemStore()
		logs := sizedLogs{m, z}
		next, slack := uint64(1), int64(0)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			first, _ := m.FirstIndex()
			last, _ := m.LastIndex()
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0: // it is opened again
				z = newLogSize()
				slack = 0
				logs.size = z
				for i := last; i >= first && i > 0; i-- {
					var l raft.Log
					if m.GetLog(i, &l) == nil {
						z.found(&l)
					}
				}
			case 1: // the beginning goes
				if last > 0 {
					slack += stretchBytes + 600_000
					if err := logs.DeleteRange(first, rapid.Uint64Range(first, last).Draw(t, "to")); err != nil {
						t.Fatal(err)
					}
				}
			case 2: // the end does, since another leader has other entries
				if last > first && first > 0 {
					slack += stretchBytes + 600_000
					next = rapid.Uint64Range(first+1, last).Draw(t, "from")
					if err := logs.DeleteRange(next, last); err != nil {
						t.Fatal(err)
					}
				}
			default:
				next += rapid.SampledFrom([]uint64{0, 0, 0, 1000}).Draw(t, "gap") // a snapshot was installed
				var some []*raft.Log
				for range rapid.IntRange(1, 20).Draw(t, "entries") {
					some = append(some, &raft.Log{Index: next, Data: make([]byte, rapid.SampledFrom([]int{10, 1000, 600_000}).Draw(t, "bytes"))})
					next++
				}
				if err := logs.StoreLogs(some); err != nil {
					t.Fatal(err)
				}
			}
			checkSize(t, z, m, slack)
		}
	})
}

func checkSize(t *rapid.T, z *logSize, m raft.LogStore, slack int64) {
	first, _ := m.FirstIndex()
	last, _ := m.LastIndex()
	var is int64
	var end uint64 // of the entries that there are
	for i := last; i >= first && i > 0; i-- {
		var l raft.Log
		if m.GetLog(i, &l) == nil {
			is += sizeOf(&l)
			end = max(end, i)
		}
	}
	if held := z.held(); held < is-slack || held > is+slack || is == 0 && held != 0 {
		t.Fatalf("there are %d bytes, and it says %d; give or take %d", is, held, slack)
	}
	if n := z.latest(z.held()); is > 0 && n != end-z.stretches[0].first+1 {
		t.Fatalf("of %d to %d the last %d are all that there is", z.stretches[0].first, end, n)
	}
	if n := z.latest(-1); n != 0 {
		t.Fatalf("%d entries are within less than nothing", n)
	}
}

// However large what is written is, the log has no more bytes than it may have, for long: a
// snapshot is taken, also between the times at which Raft looks, and few entries are kept
// behind it. A restart does not forget how large it is.
func TestLogIsBoundedByBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 4 << 20
		m := NewMemory()
		conf := Config{NodeID: "a", Memory: m, MaxLog: most}
		s := open(t, conf)
		awaitLeader(t, s)
		write := func(n int) {
			for i := range n {
				propose(t, s, largeWorker(i, 200_000))
				time.Sleep(100 * time.Millisecond)
				if held := s.LogBytes(); held > most+20*200_000 {
					t.Fatalf("after %d entries the log has %d bytes, of %d that it may have", i, held, most)
				}
			}
		}
		write(100)
		time.Sleep(2 * shortenRest)
		if held := s.LogBytes(); held > most || held < most/4 {
			t.Errorf("the log has %d bytes, of %d that it may have", held, most)
		}
		before := s.LogBytes()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, conf)
		awaitLeader(t, s)
		if held := s.LogBytes(); held < before || held > before+1000 {
			t.Errorf("after a restart it says that the log has %d bytes, and it had %d", held, before)
		}
		write(50)
	})
}

// One that was away while more was written than the log may have is given a snapshot, and
// what follows.
func TestLaggardOfALargeLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, disks := NewNetwork(), map[string]*Memory{}
		stores := map[string]*Store{}
		start := func(id string) {
			if disks[id] == nil {
				disks[id] = NewMemory()
			}
			stores[id] = open(t, Config{NodeID: id, Memory: disks[id], Transport: net.Transport(id), Bootstrap: net.Group(three...), Levels: allNew, MaxLog: 2 << 20})
		}
		for _, id := range three {
			start(id)
		}
		leader := awaitLeader(t, stores["a"], stores["b"], stores["c"])
		var away string
		for _, id := range three {
			if id != leader.id {
				away = id
			}
		}
		net.Isolate(away)
		for i := range 60 {
			propose(t, leader, largeWorker(i, 200_000))
			time.Sleep(100 * time.Millisecond)
		}
		net.Heal()
		for i := range 300 {
			if stores[away].Status().AppliedIndex >= leader.Status().CommitIndex {
				break
			}
			if time.Sleep(100 * time.Millisecond); i == 299 {
				t.Fatal("it has not caught up within half a minute")
			}
		}
		for id, s := range stores {
			time.Sleep(2 * shortenRest)
			if held := s.LogBytes(); held > 2<<20+20*200_000 {
				t.Errorf("the log of %s has %d bytes", id, held)
			}
		}
	})
}

// On a real disk, where room in the file is used again: it does not grow beyond a few times
// what the log may have.
func TestLogFileIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 80 MB")
	}
	const most = 4 << 20
	dir := t.TempDir()
	s := open(t, Config{NodeID: "a", Dir: dir, MaxLog: most})
	for s.Status().Role != "leader" || s.barrier() != nil {
		time.Sleep(10 * time.Millisecond)
	}
	var written, largest int64
	for i := range 80 {
		propose(t, s, largeWorker(i, 1_000_000))
		written += 1_000_000
		info, err := os.Stat(filepath.Join(dir, raftDBFile))
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, info.Size())
		for s.LogBytes() > most { // what is written while a snapshot is, is not what is bounded
			time.Sleep(20 * time.Millisecond)
		}
	}
	t.Logf("%d bytes were written, with %d the file was at its largest", written, largest)
	if largest > written/2 {
		t.Errorf("the file has had %d bytes, of %d that were written and %d that the log may have", largest, written, most)
	}
}
