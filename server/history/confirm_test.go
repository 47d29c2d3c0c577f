package history

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

// Some runs are lost, and others are still to be had. Somebody confirms the loss: nobody
// hears of it any more, and what is to be had is asked for as before.
func TestConfirmLoss(t *testing.T) {
	dir := t.TempDir()
	if err := ConfirmLoss(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "there is no history "+dir) {
		t.Errorf("without a file it is told %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		st := stateAt(200)
		s := New(Config{Dir: dir, Keep: generous, Clock: time.Now, Filled: func() {}, Log: quiet()})
		s.Restored(raftstore.Restoration{At: at(99), Runs: numbers(90, 100), Unseen: true})
		s.Start(st.View)
		s.Ended(at(150), numbers(100, 151))
		flush(t, s)
		gone, missing := Gap{Last: at(99).Now, Lost: true}, Gap{First: at(120).Now, Last: at(130).Now}
		if err := s.replace(t.Context(), Gap{Last: at(99).Now}, []Gap{gone, missing}, nil); err != nil {
			t.Fatal(err)
		}
		if s.Lost(time.Time{}) == "" || !s.MayLack(100) {
			t.Error("nothing is lost")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}

		is := func(when string, want ...Gap) {
			t.Helper()
			lost, err := Lost(t.Context(), dir)
			if err != nil || !slices.EqualFunc(lost, want, Gap.equal) {
				t.Errorf("%s: lost is %v, %v; want %v", when, lost, err, want)
			}
		}
		is("before", gone)
		is("and when it was only looked at", gone)
		if err := ConfirmLoss(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		is("afterwards")

		s = begin(dir, generous, st)
		if lost := s.Lost(time.Time{}); lost != "" || s.MayLack(100) {
			t.Errorf("of all it lacks %q", lost)
		}
		if r, err := s.Run(t.Context(), aRun(5).ID); r != nil || !errors.Is(err, ErrUnavailable) || errors.Is(err, state.ErrLost) {
			t.Errorf("a run that was lost, while others are to be had: %v, %v", r, err)
		}
		if r, err := s.Run(t.Context(), aRun(95).ID); r == nil || err != nil {
			t.Errorf("a run that is there: %v, %v", r, err)
		}
		if got := s.Gaps(); !slices.EqualFunc(got, []Gap{missing}, Gap.equal) {
			t.Errorf("to be had is %v, want %v", got, missing)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
