package raftstore

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Two of three are lost for ever. The third goes on alone with all that it had, and
// grows again.
func TestRecoverSurvivor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := newFormed(t, three...)
		shop(t, l, "a", 5)
		for i := range 30 {
			propose(t, l, putWorker(i))
		}
		c.agree()
		left := c.other(l)
		want, before := hashIn(t, left), fences(left)
		conf := Config{NodeID: left.id, Address: left.id, Memory: c.disks[left.id], Log: quiet()}
		if err := Recover(conf, nil); err == nil || !strings.Contains(err.Error(), "another store uses it") {
			t.Errorf("err = %v, want that it is in use", err)
		}
		for id := range c.stores {
			c.kill(id)
			if id != left.id {
				delete(c.stores, id)
			}
		}
		c.restart(left.id)
		time.Sleep(time.Minute)
		if c.stores[left.id].Leads() {
			t.Error("one of three leads")
		}
		if err := c.stores[left.id].Close(); err != nil {
			t.Fatal(err)
		}

		term, index, err := LogEnd(conf)
		if err != nil || term == 0 || index < 30 {
			t.Errorf("its log ends in term %d at entry %d, %v", term, index, err)
		}
		if err := Recover(conf, nil); err != nil {
			t.Fatal(err)
		}
		if t2, i2, err := LogEnd(conf); err != nil || t2 < term || i2 < index {
			t.Errorf("afterwards it ends in term %d at entry %d, before that in %d at %d: %v", t2, i2, term, index, err)
		}
		c.start(left.id)
		l = c.leader()
		if hashIn(t, l) != want {
			t.Error("it has another state")
		}
		if s := l.Status().Servers; len(s) != 1 || s[0] != (Server{left.id, left.id, true}) {
			t.Errorf("the group is %+v", s)
		}
		shop(t, l, "b", 5)
		if n := len(fences(l)); n != len(before)+5 {
			t.Errorf("%d fences, want 5 more than %d", n, len(before))
		}
		fresh := c.fresh("d")
		for _, voter := range []bool{false, true} {
			if err := l.AddServer(t.Context(), Server{"d", "d", voter}); err != nil {
				t.Fatal(err)
			}
			if err := fresh.WaitApplied(t.Context(), l.AppliedIndex()); err != nil {
				t.Fatal(err)
			}
		}
		c.agree()
	})
}

// Two survivors of five are made a group of two, each with the same list.
func TestRecoverSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := newFormed(t, "a", "b", "c", "d", "e")
		for i := range 30 {
			propose(t, l, putWorker(i))
		}
		c.agree()
		for id := range c.stores {
			c.kill(id)
			if id > "b" {
				delete(c.stores, id)
			}
		}
		c.net.Heal()
		group := []Server{{"a", "a", true}, {"b", "b2", true}}
		for _, v := range group {
			if err := Recover(Config{NodeID: v.ID, Memory: c.disks[v.ID], Log: quiet()}, group); err != nil {
				t.Fatal(err)
			}
			c.startAt(v.ID, v.Address)
		}
		propose(t, c.leader(), putWorker(30))
		c.agree()
		if n := numWorkers(c.stores["b"]); n != 31 {
			t.Errorf("%d workers, want 31", n)
		}
	})
}

// On a real directory, which is locked meanwhile; and what it must not do.
func TestRecoverOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "raft")
	conf := Config{NodeID: "a", Dir: dir, Log: quiet()}
	if err := Recover(conf, nil); err == nil || !strings.Contains(err.Error(), "holds no data of a primary") {
		t.Errorf("err = %v, want that there is nothing", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("it made a directory")
	}
	s := onDisk(t, dir)
	propose(t, s, putWorker(1))
	want := hashIn(t, s)
	if err := Recover(conf, nil); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("err = %v, want that it is in use", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		conf  Config
		group []Server
		want  string
	}{
		{"nobody", Config{}, nil, "needs a NodeID"},
		{"another", Config{NodeID: "b", Dir: dir, Log: quiet()}, nil, `it is the directory of primary "a"`},
		{"without itself", conf, []Server{{"b", "b", true}}, "has to be in the group itself"},
		{"without a vote", conf, []Server{{"a", "a", false}}, "at least one voter"},
	} {
		if err := Recover(tt.conf, tt.group); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: err = %v, want one that says %q", tt.name, err, tt.want)
		}
	}
	if err := Recover(conf, []Server{{"a", "elsewhere:7420", true}}); err != nil {
		t.Fatal(err)
	}
	s = onDisk(t, dir)
	if hashIn(t, s) != want || s.Status().Servers[0].Address != "elsewhere:7420" {
		t.Errorf("it came back otherwise, as %+v", s.Status().Servers)
	}
}

// What this version can't apply can't be made a snapshot of.
func TestRecoverRefusesUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		s := alone(t, m)
		if err := s.raft.Apply(unknownCommand, 0).Error(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		err := Recover(Config{NodeID: "a", Memory: m, Log: quiet()}, nil)
		if err == nil || !strings.Contains(err.Error(), "that this version does not know: upgrade this primary") {
			t.Errorf("err = %v, want that it is to be upgraded", err)
		}
		if len(m.snapshots) != 0 {
			t.Error("it wrote a snapshot")
		}
	})
}

// What was half restored when all went down was not restored.
func TestRecoverAmidRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, saved := slowed(t)
		was := hashIn(t, l)
		go func() { _ = l.RestoreSnapshot(t.Context(), bytes.NewReader(saved)) }()
		time.Sleep(3500 * time.Millisecond)
		for id := range c.stores {
			c.kill(id)
		}
		if err := Recover(Config{NodeID: l.id, Memory: c.disks[l.id], Log: quiet()}, nil); err != nil {
			t.Fatal(err)
		}
		if s := alone(t, c.disks[l.id], l.id); hashIn(t, s) != was {
			t.Error("it has another state")
		}
	})
}
