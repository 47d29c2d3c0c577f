package api

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
)

// However long a ledger is, what is told of it can be sent, and its numbers are
// of the whole of it.
func TestVerdictsFitAMessage(t *testing.T) {
	begin := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	var old, present plan.Verdict
	old.Trigger, present.Trigger = "old", "present"
	for i := range 20000 {
		at := begin.Add(time.Duration(i) * time.Minute)
		s := state.Span{First: at, Last: at, Count: 1, Decision: state.DecidedSkipped, Reason: strings.Repeat("x", 200), Version: 1}
		d := plan.Difference{From: at, To: at, Nominal: 1, Problem: "differs"}
		old.Spans, old.Differences = append(old.Spans, s), append(old.Differences, d)
		present.Spans, present.Nominal, present.Skipped = append(present.Spans, s), present.Nominal+1, present.Skipped+1
	}
	r := showVerdicts([]plan.Verdict{old, present})
	if r.GetOk() {
		t.Error("says that all is well")
	}
	if n := proto.Size(r); n > wire.MaxResponse {
		t.Errorf("%d bytes", n)
	}
	first, last := r.GetTriggers()[0], r.GetTriggers()[1]
	if n := len(first.GetDifferences()); n != maxDifferences || !first.GetDifferences()[0].GetStartTime().AsTime().Equal(begin) {
		t.Errorf("%d differences", n)
	}
	if last.GetNominal() != 20000 || len(first.GetSpans()) != 0 {
		t.Errorf("%d nominal, %d spans of what is past", last.GetNominal(), len(first.GetSpans()))
	}
	spans := last.GetSpans()
	if n := len(spans); n < 5000 || !spans[n-1].GetLastTime().AsTime().Equal(begin.Add(19999*time.Minute)) || !spans[0].GetFirstTime().AsTime().Before(spans[n-1].GetFirstTime().AsTime()) {
		t.Errorf("%d spans, the latest ones are to be told", n)
	}
}
