package systest

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/schedd/schedd/agent/runner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// When all is mended, what is has to be what should be within healWithin. What is
// otherwise then, and was healTransit before, counts: what is only on its way to be
// told, since life goes on, was not there at both times.
const (
	healWithin  = time.Minute
	healTransit = 10 * time.Second
)

// checkHealed is called when all was just mended. What should be and what is agree in
// time: each attempt that was given to a worker runs there or has ended, nothing runs
// that nobody wants, each worker has one session, and it is its newest, and all
// primaries know as much as the leader.
func (w *world) checkHealed() {
	w.Helper()
	w.compareTwice(w.amiss)
	if m := w.leader(); m != nil {
		defer w.ask(m)()
		w.checkOverdue()
	}
}

// checkAgreed is called when all was just mended, and disks for output among that, which
// their primaries don't trust yet. That is no reason for these to disagree meanwhile.
func (w *world) checkAgreed() {
	w.Helper()
	w.compareTwice(func() map[string]string {
		all, say := w.notes()
		w.primariesAmiss(say)
		return all
	})
}

// compareTwice complains of what is amiss after healWithin, and was a little before.
func (w *world) compareTwice(amiss func() map[string]string) {
	w.Helper()
	w.wait(healWithin - healTransit)
	before := amiss()
	w.wait(healTransit)
	after := amiss()
	for _, what := range slices.Sorted(maps.Keys(after)) {
		if _, was := before[what]; was {
			w.Errorf("%v after all was mended, %s", healWithin, after[what])
		}
	}
}

// notes returns what was said to be amiss, by what that is and, if something has a name
// that it is said of, by that, which comes first then: the rest of what is said may change
// while it stays amiss.
func (*world) notes() (all map[string]string, say func(format string, args ...any)) {
	all = map[string]string{}
	return all, func(format string, args ...any) {
		what := format
		if name, ok := args[0].(string); ok {
			what = name + format
		}
		all[what] = fmt.Sprintf(format, args...)
	}
}

// amiss returns what is not as it should be. All that the leader knows is asked of it
// alone: any other may be among what is amiss.
func (w *world) amiss() map[string]string {
	w.Helper()
	all, say := w.notes()
	if m, leader := w.primariesAmiss(say); m != nil {
		defer w.ask(m)()
		w.sessionsAmiss(leader, say)
		w.attemptsAmiss(say)
		w.waitsAmiss(say)
	}
	return all
}

// behindMost is how many entries a primary may be behind the leader, while life goes on.
const behindMost = 20

// primariesAmiss compares the primaries, and returns the leader and what it says of the
// group, if there is one.
func (w *world) primariesAmiss(say func(string, ...any)) (first *member, leader *schedv1.ClusterStatus) {
	said := map[*member]*schedv1.ClusterStatus{}
	for _, m := range w.group {
		if m.server == nil {
			say("%s is down", m.id)
			continue
		}
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		r, err := m.own.clusters.GetStatus(ctx, &schedv1.GetStatusRequest{})
		cancel()
		if err != nil {
			say("%s does not answer", m.id)
			continue
		}
		said[m] = r.GetStatus()
		if s := r.GetStatus(); s.GetLeaderId() == m.id && (leader == nil || s.GetTerm() > leader.GetTerm()) {
			first, leader = m, r.GetStatus()
		}
	}
	if leader == nil {
		say("%s leads", "nobody")
		return nil, nil
	}
	for m, s := range said {
		if s.GetLeaderId() != leader.GetLeaderId() || s.GetTerm() != leader.GetTerm() {
			say("%s does not know that %s leads", m.id, leader.GetLeaderId())
		}
		if s.GetAppliedIndex()+behindMost < leader.GetAppliedIndex() {
			say("%s is behind the leader", m.id)
		}
	}
	for _, p := range leader.GetPrimaries() {
		if !p.GetVoter() {
			say("%s does not vote", p.GetId())
		}
	}
	return first, leader
}

// sessionsAmiss compares who is connected with who should be.
func (w *world) sessionsAmiss(leader *schedv1.ClusterStatus, say func(string, ...any)) {
	w.Helper()
	live := 0
	for _, k := range w.workers {
		if k.life == nil {
			continue
		}
		live++
		is := w.known(k.name)
		if is.GetPhase() != schedv1.WorkerPhase_WORKER_PHASE_ONLINE || is.GetConnectedTime() == nil {
			say("%s is not online", k.name)
		}
		if is.GetSessionEpoch() < k.epoch {
			say("%s has an older session than before", k.name)
		}
		k.epoch = max(k.epoch, is.GetSessionEpoch())
	}
	sessions := 0
	for _, p := range leader.GetPrimaries() {
		sessions += int(p.GetSessions())
	}
	if sessions != live {
		say("the primaries hold %d sessions of %d workers", sessions, live)
	}
	if held := strings.Count(w.stacks(), sessionFrame); held != live {
		say("%d sessions go on, of %d workers", held, live)
	}
}

// sessionFrame is in the stack of who attends to a session with a worker, from its first
// word until nothing of it is left, whatever its gateway knows of it.
const sessionFrame = "server/gateway.(*session).run("

// attemptsAmiss compares what should run with what runs.
func (w *world) attemptsAmiss(say func(string, ...any)) {
	w.Helper()
	should, told := map[string]string{}, map[string]string{} // where each attempt should run, and what is said of it
	// What a twin ran is gone with it. Where it had a lease, it is not given up before
	// lost_after, though its worker says that it lacks it: see plan.checkAbsent.
	excused := map[string]bool{}
	for _, r := range w.runs("active=true") {
		if n := len(r.GetAttempts()); n > 0 && r.GetPhase() != schedv1.Phase_PHASE_PENDING {
			a := r.GetAttempts()[n-1]
			id := attemptID(r, a)
			if w.needsLeases[r.GetJob()] && w.twinned[a.GetWorkerName()] {
				excused[id] = true
			}
			should[id] = a.GetWorkerName()
			told[id] = fmt.Sprintf("%v, of job %s", r.GetPhase(), r.GetJob())
		}
	}
	for _, k := range w.workers {
		for _, id := range k.host.Running() {
			if should[id] == k.name {
				delete(should, id)
				continue
			}
			if why := w.unwanted(id); why != "" {
				say("%s runs on %s, %s", id, k.name, why)
			}
		}
	}
	for id, name := range should {
		if excused[id] {
			continue
		}
		say("%s should run on %s, and does not (%s)", id, name, told[id])
	}
}

// unwanted tells why an attempt, which should not run, may not either. The last one of
// a run that was given up as lost may come to its end, as long as no other has taken its
// place: that is kept as a late result.
func (w *world) unwanted(id string) string {
	w.Helper()
	run, _, _ := strings.Cut(id, "/")
	r, err := w.primary.runs.GetRun(w.Context(), &schedv1.GetRunRequest{Id: run})
	switch {
	case slices.Contains([]codes.Code{codes.NotFound, codes.DataLoss, codes.InvalidArgument}, status.Code(err)):
		return "and nobody knows of it"
	case err != nil:
		w.Fatalf("looking for the run of %s: %v", id, err)
	}
	var last *schedv1.Attempt // that may have had a process
	for _, a := range r.GetRun().GetAttempts() {
		if o := a.GetOutcome(); o != schedv1.Outcome_OUTCOME_REFUSED && o != notStarted {
			last = a
		}
	}
	waits := r.GetRun().GetPhase() == schedv1.Phase_PHASE_LOST || r.GetRun().GetPhase() == schedv1.Phase_PHASE_PENDING
	if waits && last != nil && attemptID(r.GetRun(), last) == id {
		return ""
	}
	return "and its run goes on elsewhere or is over"
}

// goroutines counts those of this world's bubble by where they were begun.
func (w *world) goroutines() map[string]int {
	w.Helper()
	begun := map[string]int{}
	for stack := range strings.SplitSeq(w.stacks(), "\n\n") {
		if by := begunBy(stack); by != "" {
			begun[by]++
		}
	}
	return begun
}

// stacks returns those of this world's bubble, with an empty line between two.
func (w *world) stacks() string {
	w.Helper()
	buf := make([]byte, 1<<20)
	n := runtime.Stack(buf, true)
	for n == len(buf) {
		buf = make([]byte, 2*len(buf))
		n = runtime.Stack(buf, true)
	}
	all := strings.Split(string(buf[:n]), "\n\n")
	mine := bubbleOf(all[0])
	if mine == "" {
		w.Fatalf("a stack names no bubble: %s", all[0])
	}
	return strings.Join(slices.DeleteFunc(all, func(stack string) bool { return bubbleOf(stack) != mine }), "\n\n")
}

// begunBy returns who began a goroutine, by its stack: for one of a WaitGroup, what it was
// given to do, and for one of a crew, what that was given. Of the main one of a bubble nothing
// is said, nor of one that a crew keeps for what comes next: of these there is a most.
func begunBy(stack string) string {
	frames, by, ok := strings.Cut(stack, "\ncreated by ")
	if !ok {
		return ""
	}
	by, _, _ = strings.Cut(by, " in goroutine")
	if !strings.HasPrefix(by, "sync.(*WaitGroup).Go") {
		return by
	}
	lines := strings.Split(frames, "\n") // of each frame two; the outermost is the WaitGroup's
	did := func(back int) string {       // without its arguments; empty when there is no such frame
		if n := len(lines); n > back {
			return lines[n-back][:max(0, strings.LastIndex(lines[n-back], "("))]
		}
		return ""
	}
	switch given := did(4); {
	case strings.HasSuffix(given, "agent/crew.(*Crew).Go.func1"):
		return did(6)
	case given != "":
		return given
	}
	return by
}

// bubbleOf returns the bubble that a goroutine is in, by its stack.
func bubbleOf(stack string) string {
	head, _, _ := strings.Cut(stack, "\n")
	_, bubble, _ := strings.Cut(head, "synctest bubble ")
	bubble, _, _ = strings.Cut(bubble, ",")
	return strings.TrimRight(bubble, "]:")
}

// checkGoroutines compares what there is when all is at rest with what there was when the
// world was young. There are as many hosts, and nothing runs, so of each kind there are no
// more, but for one of each host, which may have begun it when it first needed it. Who has
// led keeps idle connections to the other primaries, three to each of them by Raft's pool;
// and each has one to each other for output, from when it first needed it, and one to itself
// if it was told to go to the leader in the moment in which it became that, for each of
// which gRPC begins up to three goroutines of one kind.
func (w *world) checkGoroutines(young map[string]int) {
	w.Helper()
	for by, n := range w.goroutines() {
		spare := len(w.group) + len(w.workers)
		if strings.Contains(by, "raft.(*NetworkTransport).listen") || strings.HasPrefix(by, "google.golang.org/grpc/internal/") {
			spare += 3 * len(w.group) * len(w.group)
		}
		if strings.HasSuffix(by, "grpc.(*Server).handleRawConn") { // the other ends of these
			spare += len(w.group) * len(w.group)
		}
		if n > young[by]+spare {
			w.Errorf("%d goroutines were begun by %s, and there were %d when the world was young", n, by, young[by])
		}
	}
}

// What is not as it should be after all was mended is found.
func TestHealedBites(t *testing.T) {
	for name, test := range map[string]struct {
		harm func(w *world, k *worker)
		want string
	}{
		"nothing": {func(*world, *worker) {}, ""},
		"a process that nobody knows of": {func(w *world, k *worker) {
			if _, err := k.host.Start(runner.Spec{ID: "nobody/1", Env: []string{"SCHEDD_JOB=endless"}}); err != nil {
				w.Fatal(err)
			}
		}, "nobody/1 runs on shop-1, and nobody knows of it"},
		"a process whose run is over": {func(w *world, k *worker) {
			id := k.host.Running()[0]
			k.host.Die()
			w.wait(time.Second)
			if _, err := k.host.Start(runner.Spec{ID: id, Env: []string{"SCHEDD_JOB=endless"}}); err != nil {
				w.Fatal(err)
			}
		}, "and its run goes on elsewhere or is over"},
		"a process that is gone, and nobody says so": {func(w *world, k *worker) {
			w.net.halt(k.name)
			k.host.Die()
		}, "should run on shop-1, and does not"},
		"a worker that is away":       {func(_ *world, k *worker) { k.link.cut() }, "shop-1 is not online"},
		"a worker's older session":    {func(_ *world, k *worker) { k.epoch = 1 << 60 }, "shop-1 has an older session than before"},
		"a session too many":          {func(w *world, k *worker) { w.workers = nil }, "hold 1 sessions of 0 workers"},
		"a primary that is down":      {func(w *world, _ *worker) { w.group[0].kill() }, "p1 is down"},
		"a primary that stands still": {func(w *world, _ *worker) { w.group[0].suspend() }, "p1 does not answer"},
		"a primary that is cut off":   {func(w *world, _ *worker) { w.follower().isolate(true) }, "does not know that"},
		"a session that goes on":      {func(w *world, k *worker) { w.workers = nil }, "1 sessions go on, of 0 workers"},
		"no leader": {func(w *world, _ *worker) {
			w.group[0].kill()
			w.group[1].kill()
		}, "nobody leads"},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				w.startGroup(3)
				k := w.startWorker("shop-1", nil, 4)
				w.awaitOnline()
				w.takes("endless", 24*time.Hour)
				w.define(job("endless", policy(&schedv1.Policy{OnLost: schedv1.OnLost_ON_LOST_RETRY})))
				w.run("endless")
				w.wait(time.Minute)
				workers := w.workers
				test.harm(w, k)
				w.suspects = []string{}
				w.checkHealed()
				said := strings.Join(w.suspects, "\n")
				w.suspects, w.workers = nil, workers
				for _, m := range w.group {
					m.resume()
				}
				w.net.resume(k.name)
				if said != "" && test.want == "" || !strings.Contains(said, test.want) {
					w.Errorf("it says:\n%s\nwant %q", said, test.want)
				}
			})
		})
	}
}

// Goroutines that are left over are found.
func TestGoroutinesBite(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		w.wait(time.Minute)
		young := w.goroutines()
		if len(young) < 10 {
			w.Errorf("a group of three has goroutines of %d kinds only: %v", len(young), young)
		}
		w.wait(time.Minute)
		w.checkGoroutines(young)
		w.suspects = []string{}
		done := make(chan struct{})
		for range 10 {
			go func() { <-done }()
		}
		w.checkGoroutines(young)
		said := strings.Join(w.suspects, "\n")
		w.suspects = nil
		close(done)
		if !strings.Contains(said, "10 goroutines were begun by") || !strings.Contains(said, "TestGoroutinesBite") {
			w.Errorf("it says:\n%s", said)
		}
	})
}
