package raftstore

import (
	"testing"

	"github.com/hashicorp/raft"
)

// How far a primary has to come is told by the last entry that the state is given.
func TestFindGoal(t *testing.T) {
	const command, config, noop = raft.LogCommand, raft.LogConfiguration, raft.LogNoop
	for _, tt := range []struct {
		name string
		snap *raft.SnapshotMeta
		log  []raft.LogType // from index 1 on; each of term 1, the last of term 2
		from uint64         // entries before it are cut off
		want goal
	}{
		{"nothing", nil, nil, 1, goal{}},
		{"a command", nil, []raft.LogType{config, command}, 1, goal{index: 2, term: 2}},
		{"a change of the group", nil, []raft.LogType{command, config}, 1, goal{index: 2, term: 2}},
		{"what the state never sees", nil, []raft.LogType{config, command, noop, noop}, 1, goal{index: 2, term: 2}},
		{"only that", nil, []raft.LogType{noop, noop}, 1, goal{term: 2}},
		{"a snapshot", &raft.SnapshotMeta{Index: 5, Term: 3}, nil, 1, goal{term: 3, opening: true}},
		{"a snapshot that has all", &raft.SnapshotMeta{Index: 2, Term: 1}, []raft.LogType{config, command, noop}, 1, goal{term: 2, opening: true}},
		{"a snapshot that lacks one", &raft.SnapshotMeta{Index: 2, Term: 1}, []raft.LogType{config, command, command, noop}, 1, goal{index: 3, term: 2, opening: true}},
		{"a log that was cut", nil, []raft.LogType{config, command, noop, noop}, 3, goal{term: 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := NewMemory()
			d, err := m.open()
			if err != nil {
				t.Fatal(err)
			}
			for i, typ := range tt.log {
				l := raft.Log{Index: uint64(i + 1), Term: 1, Type: typ}
				if i == len(tt.log)-1 {
					l.Term = 2
				}
				if err := d.logs.StoreLog(&l); err != nil {
					t.Fatal(err)
				}
			}
			if tt.from > 1 {
				if err := d.logs.DeleteRange(1, tt.from-1); err != nil {
					t.Fatal(err)
				}
			}
			if tt.snap != nil {
				m.snapshots = []memorySnapshot{{meta: *tt.snap}}
			}
			got, err := findGoal(d)
			if err != nil || got.index != tt.want.index || got.term != tt.want.term || got.opening != tt.want.opening {
				t.Errorf("goal = %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}

func TestGoalIsReached(t *testing.T) {
	g := goal{index: 10, term: 3}
	for _, tt := range []struct {
		index, term uint64
		want        bool
	}{
		{9, 3, false}, {10, 3, true}, {11, 3, true}, {9, 2, false}, {5, 4, true},
	} {
		if got := g.applied(tt.index, tt.term); got != tt.want {
			t.Errorf("with entry %d of term %d: %v", tt.index, tt.term, got)
		}
	}
	g = goal{index: 10, opening: true}
	if g.restored() {
		t.Error("by its own snapshot, with entries after it")
	}
	if !g.restored() {
		t.Error("not by one that the leader has sent")
	}
	g = goal{opening: true}
	if !g.restored() {
		t.Error("not by its own snapshot, with nothing after it")
	}
}
