package bareraft

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// What was applied is in the log: a loop that only pretends would be no baseline.
func TestApplied(t *testing.T) {
	l, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := l.Apply([]byte("entry")); err != nil {
			t.Fatal(err)
		}
	}
	last, err := l.logs.LastIndex()
	var entry raft.Log
	if err == nil {
		err = l.logs.GetLog(last, &entry)
	}
	if err != nil || string(entry.Data) != "entry" || last < 4 { // the first one is the group
		t.Errorf("entry %d is %q, %v", last, entry.Data, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Apply(nil); err == nil {
		t.Error("it applies after its end")
	}
}

func TestRate(t *testing.T) {
	rate, err := Rate(t.Context(), t.TempDir(), 2, 100, 50*time.Millisecond)
	if err != nil || rate <= 0 {
		t.Errorf("%v per second, %v", rate, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if rate, err := Rate(ctx, t.TempDir(), 2, 100, time.Hour); rate != 0 || err != nil {
		t.Errorf("%v per second after the end, %v", rate, err)
	}
}
