package systest

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
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
		"started by twins":             {func(w *world, r *schedv1.Run) { w.startedOn("copy", r); w.copies["copy"] = w.workers[0].name }, ""},
		"started elsewhere as well":    {func(w *world, r *schedv1.Run) { w.startedOn("another", r) }, "was started 2 times"},
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

// startedOn writes down that another host has started the first attempt of a run, too.
func (w *world) startedOn(host string, r *schedv1.Run) {
	s := w.book.of(r.GetId() + "/1")[0]
	s.worker = host
	w.book.enter(s)
}

// ghost is a start of something that was never decided.
func ghost(w *world) start {
	s := w.book.of(w.book.attempts()[0])[0]
	s.spec.ID = "nobody/1"
	return s
}

// redefine has the oracle believe that the job has another schedule.
func (w *world) redefine(expression string) {
	w.put["j"][0].job.GetTriggers()[0].GetCron().Expression = expression
}

// Witnesses see through a primary that forgets, repeats or invents.
func TestWitnessesBite(t *testing.T) {
	put := func(value int) question { return question{"j", "put", value} }
	get, drop := question{job: "j", op: "get"}, question{job: "j", op: "delete"}
	absent, lost := answer{absent: true}, answer{unknown: true}
	for name, test := range map[string]struct {
		history []porcupine.Operation // one call after the other; those without an answer never end
		fine    bool
	}{
		"nothing wrong":              {calls(get, absent, put(1), answer{}, get, answer{value: 1}, drop, answer{}, get, absent), true},
		"no answer, and it was done": {calls(put(1), answer{}, put(2), lost, get, answer{value: 1}, get, answer{value: 2}), true},
		"no answer, and it was not":  {calls(put(1), answer{}, drop, lost, get, answer{value: 1}), true},
		"a write was forgotten":      {calls(put(1), answer{}, get, absent), false},
		"a write came back":          {calls(put(1), answer{}, put(2), answer{}, get, answer{value: 1}), false},
		"a write was done twice":     {calls(put(1), lost, get, answer{value: 1}, put(2), answer{}, get, answer{value: 1}), false},
		"a deletion was forgotten":   {calls(put(1), answer{}, drop, answer{}, get, answer{value: 1}), false},
		"nothing was deleted":        {calls(put(1), answer{}, drop, absent), false},
		"nobody wrote that":          {calls(get, answer{value: 7}), false},
	} {
		if porcupine.CheckOperations(register, test.history) != test.fine {
			t.Errorf("%s: that is said to be fine: %v", name, !test.fine)
		}
	}
}

// calls makes a history of questions and answers in turn.
func calls(all ...any) (history []porcupine.Operation) {
	for i := 0; i < len(all); i += 2 {
		o := porcupine.Operation{ClientId: i, Input: all[i], Call: int64(10 * i), Output: all[i+1], Return: int64(10*i + 5)}
		if a, _ := o.Output.(answer); a.unknown {
			o.Return = math.MaxInt64
		}
		history = append(history, o)
	}
	return history
}
