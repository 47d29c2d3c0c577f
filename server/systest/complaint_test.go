package systest

import (
	"fmt"
	"strings"
	"testing"
)

// complaint is the first line of what was said first to be wrong with a world; empty: nothing
// was. It stands where a hunt counts its findings, since the log of a whole hunt is long, and
// who has only its end should know what was found.
func (w *world) complaint() string {
	if said := w.first.Load(); said != nil {
		line, _, _ := strings.Cut(*said, "\n")
		return line
	}
	return ""
}

func (w *world) Error(args ...any) {
	w.Helper()
	w.blame(fmt.Sprint(args...))
	w.T.Error(args...)
}

// Errorf says that the story is not as it should be.
func (w *world) Errorf(format string, args ...any) {
	w.Helper()
	if w.suspects != nil {
		w.suspects = append(w.suspects, fmt.Sprintf(format, args...))
		return
	}
	w.blame(fmt.Sprintf(format, args...))
	w.T.Errorf(format, args...)
}

func (w *world) Fatal(args ...any) {
	w.Helper()
	w.blame(fmt.Sprint(args...))
	w.T.Fatal(args...)
}

func (w *world) Fatalf(format string, args ...any) {
	w.Helper()
	w.blame(fmt.Sprintf(format, args...))
	w.T.Fatalf(format, args...)
}

func (w *world) blame(said string) { w.first.CompareAndSwap(nil, &said) }

// What was wrong first is what a hunt tells.
func TestComplaint(t *testing.T) {
	w := &world{T: t}
	if w.complaint() != "" {
		t.Errorf("nothing was wrong with it, and it says %q", w.complaint())
	}
	w.blame("a run was started twice\nand here is its log")
	w.blame("another one")
	if want := "a run was started twice"; w.complaint() != want {
		t.Errorf("it says %q was wrong first, want %q", w.complaint(), want)
	}
}
