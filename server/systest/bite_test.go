package systest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/schedd/schedd/agent/runner/fakerunner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// A check that can't fail protects nothing: each promise is broken here once, in
// what the checker holds the primary's word against.
func TestCheckBites(t *testing.T) {
	for name, test := range map[string]struct {
		tamper func(w *world, r *schedv1.Run)
		want   string
	}{
		"nothing":                      {func(*world, *schedv1.Run) {}, ""},
		"started twice":                {func(w *world, r *schedv1.Run) { w.book.enter(w.book.of(r.GetId() + "/1")[0]) }, "was started 2 times"},
		"started and nobody knows":     {func(w *world, _ *schedv1.Run) { w.book.enter(ghost(w)) }, "nobody knows of it"},
		"said to have run, and didn't": {func(w *world, r *schedv1.Run) { delete(w.book.starts, r.GetId()+"/1") }, "was never started"},
		"another fence": {func(w *world, r *schedv1.Run) {
			env := w.book.starts[r.GetId()+"/1"][0].spec.Env
			env[slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, "SCHEDD_FENCE=") })] = "SCHEDD_FENCE=1"
		}, "with the fence 1"},
		"printed more": {func(w *world, r *schedv1.Run) {
			s := &w.book.starts[r.GetId()+"/1"][0]
			s.does.Output = append(slices.Clone(s.does.Output), fakerunner.Chunk{Data: []byte("more")})
		}, "printed 45 bytes, the log of attempt 1 has 41 (same beginning: true)"},
		"printed something else": {func(w *world, r *schedv1.Run) {
			w.book.starts[r.GetId()+"/1"][0].does.Output[0].Data[30] ^= 1
		}, "same beginning: false"},
		"due more often":  {func(w *world, _ *schedv1.Run) { w.redefine("0,30 * * * * *") }, "occurrences from"},
		"due otherwise":   {func(w *world, _ *schedv1.Run) { w.redefine("1 * * * * *") }, "instants are left"},
		"fences reversed": {nil, "was given before fence"},
		"a run too many":  {nil, "that the ledger does not have"},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				shop(w)
				w.define(job("j", cron("* * * * *", "")))
				w.wait(10*time.Minute + 10*time.Second)
				w.settle(time.Minute)
				w.suspects = []string{}
				runs := w.runsOf("j")
				switch {
				case test.tamper != nil:
					test.tamper(w, runs[4])
					w.checkAll()
				case name == "a run too many":
					twin := proto.CloneOf(runs[4])
					twin.NominalTime = stamp(runs[4].GetNominalTime().AsTime().Add(time.Second))
					w.checkLedger(w.jobs()[0], append(runs, twin))
				default:
					a, b := runs[3].GetAttempts()[0], runs[4].GetAttempts()[0]
					a.Fence, b.Fence = b.GetFence(), a.GetFence()
					w.checkFences(runs)
				}
				said := strings.Join(w.suspects, "\n")
				w.suspects = nil
				if said != "" && test.want == "" || !strings.Contains(said, test.want) {
					w.Errorf("the checker says:\n%s\nwant %q", said, test.want)
				}
			})
		})
	}
}

// ghost is a start of something that was never decided.
func ghost(w *world) start {
	s := w.book.of(w.book.attempts()[0])[0]
	s.spec.ID = "nobody/1"
	return s
}

// redefine has the oracle believe that the job has another schedule.
func (w *world) redefine(expression string) {
	w.put["j"][0].triggers[0].GetCron().Expression = expression
}
