package plan

import (
	"runtime"
	"testing"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// What was large gives back its room, and what is left in it is found.
func TestRoomOfWhatIsGone(t *testing.T) {
	const n, left = 20_000, 100
	id := func(i int) state.RunID { return state.RequestRunID(1, time.Duration(i).String()) }
	start := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	table, timers := NewTable[state.RunID, int](), NewTimers[state.RunID]()
	before := inUse()
	for i := range n {
		table.Set(id(i), i)
		timers.Set(id(i), start.Add(time.Duration(i)))
	}
	for i := range n - left {
		table.Delete(id(i))
		timers.Remove(id(i))
	}
	if took := int64(inUse() - before); took > 512<<10 {
		t.Errorf("%d that are left of %d take %d bytes", left, n, took)
	}
	for i := n - left; i < n; i++ {
		if v, ok := table.Get(id(i)); !ok || v != i {
			t.Errorf("for key %d there is %d, %v", i, v, ok)
		}
		if k, ok := timers.Pop(start.Add(time.Hour)); !ok || k != id(i) {
			t.Errorf("%v comes next, %v, want key %d", k, ok, i)
		}
	}
	if table.Len() != left || timers.Len() != 0 {
		t.Errorf("%d in the table, and %d timers are left", table.Len(), timers.Len())
	}
}

// inUse returns how much memory can't be given back to the system.
func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}
