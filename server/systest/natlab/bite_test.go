//go:build e2e && linux

package natlab_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// A check that can't fail protects nothing: each is shown a story in which all is
// well, and then one in which one thing is not.
func TestChecksBite(t *testing.T) {
	const begin = 1_800_000_000
	told := func(run, fence, nominal int) string {
		return fmt.Sprintf("r%d 1 %d %s tick %d.5", run, fence, time.Unix(int64(nominal), 0).UTC().Format(time.RFC3339Nano), nominal)
	}
	for name, test := range map[string]struct {
		spoil func(s *story, file *[]string, proof *schedv1.VerifyLedgerResponse)
		want  string // in the complaint; empty: there is none
	}{
		"nothing":           {func(*story, *[]string, *schedv1.VerifyLedgerResponse) {}, ""},
		"another job":       {func(_ *story, f *[]string, _ *schedv1.VerifyLedgerResponse) { *f = append(*f, "r9 1 9 - tock 1.0") }, ""},
		"started twice":     {func(_ *story, f *[]string, _ *schedv1.VerifyLedgerResponse) { *f = append(*f, (*f)[2]) }, "was started twice"},
		"not started":       {func(_ *story, f *[]string, _ *schedv1.VerifyLedgerResponse) { *f = (*f)[1:] }, "0 processes ran"},
		"started by no one": {func(_ *story, f *[]string, _ *schedv1.VerifyLedgerResponse) { *f = append(*f, told(9, 9, begin)) }, "no such attempt"},
		"another fence":     {func(_ *story, f *[]string, _ *schedv1.VerifyLedgerResponse) { (*f)[1] = told(1, 99, begin+1) }, "its attempt is"},
		"another instant":   {func(_ *story, f *[]string, _ *schedv1.VerifyLedgerResponse) { (*f)[1] = told(1, 1, begin+2) }, "its attempt is"},
		"half a line":       {func(_ *story, f *[]string, _ *schedv1.VerifyLedgerResponse) { (*f)[1] = "r1 1" }, "2 words"},
		"no run": {func(s *story, f *[]string, _ *schedv1.VerifyLedgerResponse) {
			s.runs, *f = slices.Delete(s.runs, 1, 2), slices.Delete(*f, 1, 2)
		}, "no second between"},
		"failed": {func(s *story, _ *[]string, _ *schedv1.VerifyLedgerResponse) {
			s.runs[1].Phase = schedv1.Phase_PHASE_LOST
		}, "PHASE_LOST"},
		"missed":     {func(_ *story, _ *[]string, p *schedv1.VerifyLedgerResponse) { p.Triggers[0].Missed = 1 }, "the ledger says"},
		"ran more":   {func(_ *story, _ *[]string, p *schedv1.VerifyLedgerResponse) { p.Triggers[0].Ran = 4 }, "the ledger says"},
		"undecided":  {func(_ *story, _ *[]string, p *schedv1.VerifyLedgerResponse) { p.Triggers[0].Nominal = 9 }, "the ledger says"},
		"not proved": {func(_ *story, _ *[]string, p *schedv1.VerifyLedgerResponse) { p.Ok = false }, "not proved"},
	} {
		s, file := &story{job: "tick"}, []string{}
		for n := range 3 {
			s.runs = append(s.runs, &schedv1.Run{
				Id: fmt.Sprint("r", n), Phase: schedv1.Phase_PHASE_SUCCEEDED,
				NominalTime: &timestamppb.Timestamp{Seconds: int64(begin + n)},
				Attempts:    []*schedv1.Attempt{{Number: 1, Fence: uint64(n)}},
			})
			file = append(file, told(n, n, begin+n))
		}
		proof := &schedv1.VerifyLedgerResponse{Ok: true, Triggers: []*schedv1.TriggerVerdict{{Nominal: 4, Ran: 3, Skipped: 1}}}
		test.spoil(s, &file, proof)
		var faults []error
		s.effects, faults = readEffects(strings.Join(file, "\n"), "tick")
		faults = slices.Concat(faults, s.gaps(), s.mismatches(), s.mistakes(proof))
		if text := fmt.Sprint(faults); (len(faults) > 0) != (test.want != "") || !strings.Contains(text, test.want) {
			t.Errorf("%s: the checks say %s, want %q", name, text, test.want)
		}
	}
	for log, whole := range map[string]bool{
		"line 0\nline 1\nend 2\n": true,
		"end 0\n":                 true,
		"line 0\nline 1\n":        false,
		"line 0\nend 2\n":         false,
		"line 1\nend 1\n":         false,
		"line 0\nline 0\nend 2\n": false,
		"":                        false,
	} {
		if wrong := miscounted(log); (wrong == "") != whole {
			t.Errorf("the log %q: %q", log, wrong)
		}
	}
}
