package agent_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// forever is an attempt that only ends when it is made to.
var forever = fakerunner.Behaviour{Duration: -1}

// A worker makes its key at the first start, and is known by it ever after.
func TestFirstConnection(t *testing.T) {
	story(t, polite, nil, func(w *world) {
		w.start().end()
		w.start()
		first, second := w.gateway.visits()[0], w.gateway.last()

		w.says(first, "inventory", "goodbye")
		w.says(second, "inventory")
		h := first.hello
		if h.GetName() != "shop-1" || h.GetSlots() != 4 || h.GetLabels()["zone"] != "eu" || h.GetBootId() != "boot-1" {
			t.Errorf("hello says %v", h)
		}
		if h.GetMinRevision() != wire.MinRevision || h.GetMaxRevision() != wire.MaxRevision {
			t.Errorf("hello offers revisions %d to %d", h.GetMinRevision(), h.GetMaxRevision())
		}
		if a, b := wire.WorkerID(h.GetPublicKey()), wire.WorkerID(second.hello.GetPublicKey()); a != b {
			t.Errorf("the worker's id was %s, and is %s after a restart", a, b)
		}
		if got := []uint64{h.GetSessionEpoch(), second.hello.GetSessionEpoch()}; got[0] != 1<<32|1 || got[1] != 2<<32|1 {
			t.Errorf("epochs %x, want that of a first and a second start", got)
		}
		if h.GetInstance() == second.hello.GetInstance() {
			t.Error("two starts are one instance")
		}
		info, err := os.Stat(filepath.Join(w.dir, "identity.key"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("key file: %v, %v", info.Mode(), err)
		}
	})
}

// From launch to the last byte of the log, and then nothing is left.
func TestLifeOfAnAttempt(t *testing.T) {
	output := text(100_000)
	script := map[string]fakerunner.Behaviour{"r1": {
		Duration: 10 * time.Second, ExitCode: 3, CPUTime: time.Second, MaxRSS: 1 << 20,
		Output: []fakerunner.Chunk{{Data: output[:70_000]}, {After: 5 * time.Second, Data: output[70_000:]}},
	}}
	story(t, polite, script, func(w *world) {
		w.start()
		v := w.gateway.last()
		v.launch(launchOf("r1"))
		w.wait(3 * time.Second)
		w.says(v, "inventory", "started r1/1")
		if got := w.gateway.log("r1"); got != string(output[:70_000]) {
			t.Errorf("after 3 s %d bytes of the log have arrived, want 70000", len(got))
		}
		w.wait(10 * time.Second)
		w.says(v, "inventory", "started r1/1", "result r1/1 FAILED")
		if got := w.gateway.log("r1"); got != string(output) {
			t.Errorf("%d bytes of the log have arrived, want all %d", len(got), len(output))
		}
		r := w.gateway.result("r1")
		if r.GetExitCode() != 3 || r.GetFence() != 41 || r.GetLogBytes() != 100_000 || r.GetCpuTime().AsDuration() != time.Second ||
			r.GetFinishedTime().AsTime().Sub(r.GetStartedTime().AsTime()) != 10*time.Second {
			t.Errorf("result: %v", r)
		}
		spec := w.host.Specs()[0]
		for _, want := range []string{"SCHEDD_RUN_ID=r1", "SCHEDD_SCHEDULED_AT=2026-01-02T03:04:05Z", "GREETING=hello"} {
			if !slices.Contains(spec.Env, want) {
				t.Errorf("environment %q has no %s", spec.Env, want)
			}
		}
		if left, err := filepath.Glob(filepath.Join(w.dir, "spool", "*")); len(left) > 0 || err != nil {
			t.Errorf("left in the spool: %q, %v", left, err)
		}
	})
}

// That it was started is told of a process that goes on. Of one that ends at once its
// result tells as much.
func TestShortAttemptIsToldOnce(t *testing.T) {
	const tellAfter = 50 * time.Millisecond
	script := map[string]fakerunner.Behaviour{"short": {Duration: tellAfter - 1}, "longer": {Duration: 2 * tellAfter}}
	story(t, polite, script, func(w *world) {
		w.start()
		v := w.gateway.last()
		v.launch(launchOf("short"))
		w.wait(time.Second)
		w.says(v, "inventory", "result short/1 SUCCEEDED")
		if r := w.gateway.result("short"); r.GetFinishedTime().AsTime().Sub(r.GetStartedTime().AsTime()) != tellAfter-1 {
			t.Errorf("result: %v", r)
		}
		v.launch(launchOf("longer"))
		w.wait(tellAfter)
		w.says(v, "inventory", "result short/1 SUCCEEDED", "started longer/1")
		w.wait(time.Second)
		w.says(v, "inventory", "result short/1 SUCCEEDED", "started longer/1", "result longer/1 SUCCEEDED")
	})
}

// Every message may come twice, and long after the attempt was forgotten.
func TestLaunchTwiceStartsOnce(t *testing.T) {
	story(t, polite, map[string]fakerunner.Behaviour{"r1": {Duration: 10 * time.Second}}, func(w *world) {
		w.start()
		v := w.gateway.last()
		v.launch(launchOf("r1"))
		v.launch(launchOf("r1"))
		w.wait(time.Second)
		v.launch(launchOf("r1"))
		w.wait(time.Second)
		if got := v.story(); !slices.Contains(got, "started r1/1") || len(got) < 3 {
			t.Errorf("a launch of an attempt that runs was answered with %q", got)
		}
		w.wait(20 * time.Second) // it has ended, and was acknowledged
		before := len(v.story())
		v.launch(launchOf("r1"))
		v.kill(launchOf("r1"), 0)
		w.wait(time.Second)
		if got := v.story()[before:]; len(got) != 0 {
			t.Errorf("an attempt that is forgotten was answered with %q", got)
		}
		w.workers[0].end()
		w.start()
		w.gateway.last().launch(launchOf("r1"))
		w.wait(time.Second)
		w.says(w.gateway.last(), "inventory")
		w.startsOf("r1", 1)
	})
}

// A result is told in each session until one of them brings the word that it is
// on record, and asked for in between.
func TestResultIsResentUntilAcked(t *testing.T) {
	story(t, manners{ackLogs: true}, map[string]fakerunner.Behaviour{"r1": {Duration: time.Second}}, func(w *world) {
		w.start()
		w.gateway.last().launch(launchOf("r1"))
		w.wait(5 * time.Second)
		for range 3 {
			w.gateway.last().hangUp()
			w.wait(time.Minute)
			w.says(w.gateway.last(), "inventory r1/1=ENDED", "result r1/1 SUCCEEDED")
		}
		w.workers[0].end() // and over a restart
		w.start()
		v := w.gateway.last()
		v.send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_InventoryRequest{}})
		w.wait(time.Second)
		told := []string{"inventory r1/1=ENDED", "result r1/1 SUCCEEDED"}
		w.says(v, append(told, told...)...)

		v.ackResult(&agentv1.Result{Key: launchOf("r1").GetKey(), Fence: 40}, false) // with another fence
		w.wait(time.Second)
		v.send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_InventoryRequest{}})
		w.wait(time.Second)
		w.says(v, slices.Repeat(told, 3)...)
		v.ackResult(w.gateway.result("r1"), false)
		w.wait(time.Second)
		v.hangUp()
		w.wait(time.Minute)
		w.says(w.gateway.last(), "inventory")
		w.startsOf("r1", 1)
	})
}

// The connection breaks in the middle of a log, and pieces get lost on top. The
// log arrives whole, and so late only because of that.
func TestLogArrivesWhole(t *testing.T) {
	output := text(1 << 20)
	script := map[string]fakerunner.Behaviour{"r1": {Duration: 90 * time.Second}}
	b := script["r1"]
	for part := range slices.Chunk(output, 1<<14) {
		b.Output = append(b.Output, fakerunner.Chunk{After: time.Second, Data: part})
	}
	script["r1"] = b
	lossy := polite
	lossy.loseChunks = 7
	story(t, lossy, script, func(w *world) {
		w.start()
		w.gateway.last().launch(launchOf("r1"))
		for range 4 {
			w.wait(20 * time.Second)
			w.gateway.last().hangUp()
		}
		w.wait(5 * time.Minute)
		if got := w.gateway.log("r1"); got != string(output) {
			t.Errorf("%d of %d bytes arrived", len(got), len(output))
		}
		w.outcomeOf("r1", agentv1.Outcome_OUTCOME_SUCCEEDED, "")
		if n := len(w.gateway.visits()); n < 4 {
			t.Errorf("%d sessions, want one after each break", n)
		}
		if left, _ := filepath.Glob(filepath.Join(w.dir, "spool", "*")); len(left) > 0 {
			t.Errorf("left in the spool: %q", left)
		}
	})
}

// A gateway whose disk is full can't keep a log. The result does not wait for it,
// and the log comes when there is room again.
func TestLogWaitsForAGatewayWithoutRoom(t *testing.T) {
	output := text(50_000)
	full := polite
	full.logError = "no space left on device"
	script := map[string]fakerunner.Behaviour{"r1": {Duration: time.Second, Output: []fakerunner.Chunk{{Data: output}}}}
	story(t, full, script, func(w *world) {
		w.start()
		v := w.gateway.last()
		v.launch(launchOf("r1"))
		w.wait(10 * time.Minute)
		w.says(v, "inventory", "started r1/1", "result r1/1 SUCCEEDED")
		asked := 0
		for _, m := range v.words() {
			if m.GetLogAppend() != nil {
				asked++
			}
		}
		if asked < 5 || asked > 40 {
			t.Errorf("in 10 minutes the worker tried %d times, want some, with pauses", asked)
		}
		w.gateway.behave(func(m *manners) { m.logError = "" })
		w.wait(2 * time.Minute)
		if got := w.gateway.log("r1"); got != string(output) {
			t.Errorf("%d of %d bytes arrived in the end", len(got), len(output))
		}
	})
}

// Nobody wants the log any more: the worker's copy goes at once.
func TestUnwantedLogIsDropped(t *testing.T) {
	script := map[string]fakerunner.Behaviour{"r1": {Duration: time.Second, Output: []fakerunner.Chunk{{Data: text(50_000)}}}}
	story(t, manners{ackResults: true, unwanted: true}, script, func(w *world) {
		w.start()
		w.gateway.last().launch(launchOf("r1"))
		w.wait(5 * time.Second)
		if left, _ := filepath.Glob(filepath.Join(w.dir, "spool", "*")); len(left) > 0 {
			t.Errorf("left in the spool: %q", left)
		}
	})
}

// The primaries have another log of the attempt and never take this one: it leaves the
// spool and is kept for people, the worker says so once, and goes on.
func TestRefusedLogIsSetAside(t *testing.T) {
	output := text(50_000)
	refuses := polite
	refuses.logError, refuses.refuses = "sealed at 500", launchOf("r1").GetFence()
	script := map[string]fakerunner.Behaviour{"r1": {Duration: time.Second, Output: []fakerunner.Chunk{{Data: output}}}}
	story(t, refuses, script, func(w *world) {
		w.start()
		w.gateway.last().launch(launchOf("r1"))
		w.wait(10 * time.Second)
		if left, _ := filepath.Glob(filepath.Join(w.dir, "spool", "*")); len(left) > 0 {
			t.Errorf("left in the spool: %q", left)
		}
		if got, err := os.ReadFile(filepath.Join(w.dir, "spool-refused", "r1.1.log")); err != nil || !bytes.Equal(got, output) {
			t.Errorf("%d bytes were kept of %d: %v", len(got), len(output), err)
		}
		if n := strings.Count(w.workers[0].log.String(), "log refused, and set aside"); n != 1 {
			t.Errorf("the worker said so %d times, want once", n)
		}
	})
}

// That the log of another fence is refused says nothing of this one.
func TestLogOfAnotherFenceIsRefused(t *testing.T) {
	output := text(50_000)
	refuses := polite
	refuses.logError, refuses.refuses = "sealed at 500", launchOf("r1").GetFence()-1
	script := map[string]fakerunner.Behaviour{"r1": {Duration: time.Second, Output: []fakerunner.Chunk{{Data: output}}}}
	story(t, refuses, script, func(w *world) {
		w.start()
		w.gateway.last().launch(launchOf("r1"))
		w.wait(10 * time.Second)
		w.gateway.behave(func(m *manners) { m.logError = "" })
		w.wait(2 * time.Minute)
		if got := w.gateway.log("r1"); got != string(output) {
			t.Errorf("%d of %d bytes arrived", len(got), len(output))
		}
	})
}

func TestKill(t *testing.T) {
	stubborn := forever
	stubborn.IgnoreTerm = true
	script := map[string]fakerunner.Behaviour{"meek": forever, "stubborn": stubborn, "quick": {}}
	story(t, polite, script, func(w *world) {
		w.start()
		v := w.gateway.last()
		for _, run := range []string{"meek", "stubborn"} {
			v.launch(launchOf(run))
		}
		w.wait(time.Second)
		v.kill(launchOf("meek"), 5*time.Second)
		v.kill(launchOf("stubborn"), 5*time.Second)
		wrong := launchOf("stubborn")
		wrong.Fence = 7
		v.kill(wrong, 0) // is not about this attempt
		w.wait(time.Second)
		w.outcomeOf("meek", agentv1.Outcome_OUTCOME_KILLED, "somebody asked")
		if r := w.gateway.result("stubborn"); r != nil {
			t.Errorf("stubborn ended before its grace was over: %v", r)
		}
		w.wait(10 * time.Second)
		if r := w.outcomeOf("stubborn", agentv1.Outcome_OUTCOME_KILLED, "somebody asked"); r.GetSignal() != "SIGKILL" {
			t.Errorf("stubborn ended with %q", r.GetSignal())
		}

		// One that nobody has heard of is answered, and never starts.
		v.kill(launchOf("quick"), 0)
		w.wait(time.Second)
		w.outcomeOf("quick", agentv1.Outcome_OUTCOME_NOT_STARTED, "killed before it was launched")
		v.launch(launchOf("quick"))
		w.workers[0].end()
		w.start()
		w.gateway.last().launch(launchOf("quick"))
		w.wait(time.Second)
		w.startsOf("quick", 0)
	})
}

// A launch that comes too late, or waits too long, is answered and not carried
// out. One whose program can't be started is answered likewise.
func TestNotStarted(t *testing.T) {
	script := map[string]fakerunner.Behaviour{"broken": {StartError: os.ErrNotExist}}
	story(t, polite, script, func(w *world) {
		w.start()
		v := w.gateway.last()
		late, never := launchOf("late"), launchOf("never")
		late.StartWithin, never.StartWithin = durationpb.New(-time.Second), nil
		v.launch(late)
		v.launch(never)
		v.launch(launchOf("broken"))
		v.launch(launchOf("../../etc"))
		v.launch(&agentv1.Launch{})
		w.wait(time.Second)
		for _, run := range []string{"late", "never"} {
			w.outcomeOf(run, agentv1.Outcome_OUTCOME_NOT_STARTED, "had to start within")
			w.startsOf(run, 0)
		}
		w.outcomeOf("broken", agentv1.Outcome_OUTCOME_NOT_STARTED, "file does not exist")
		if r := w.gateway.result("../../etc"); r != nil {
			t.Errorf("what is no name of a run was answered with %v", r)
		}
		if left, _ := filepath.Glob(filepath.Join(w.dir, "spool", "*")); len(left) > 0 {
			t.Errorf("left in the spool: %q", left)
		}
	})
}

// A worker without a runner of its own that is stopped ends what runs, tells so, and
// says goodbye.
func TestGracefulStop(t *testing.T) {
	stubborn := forever
	stubborn.IgnoreTerm = true
	story(t, polite, map[string]fakerunner.Behaviour{"r1": forever, "r2": stubborn}, func(w *world) {
		w.bare()
		one := w.start()
		v := w.gateway.last()
		v.launch(launchOf("r1"))
		v.launch(launchOf("r2"))
		w.wait(time.Second)
		one.stop()
		w.wait(time.Second)
		v.launch(launchOf("r3"))
		one.wg.Wait()
		w.outcomeOf("r1", agentv1.Outcome_OUTCOME_INTERRUPTED, "the worker was stopped")
		w.outcomeOf("r2", agentv1.Outcome_OUTCOME_INTERRUPTED, "the worker was stopped")
		w.outcomeOf("r3", agentv1.Outcome_OUTCOME_REFUSED, "being stopped")
		if got := v.story(); got[len(got)-1] != "goodbye" {
			t.Errorf("the last words were %q", got)
		}
		w.startsOf("r3", 0)
	})
}

// A start hangs, as long as a file system does not answer, and the runner is this process. It
// ends all the same, and the next life tells that nobody knows.
func TestStopAmidAStartThatHangs(t *testing.T) {
	story(t, polite, map[string]fakerunner.Behaviour{"r1": {}, "r2": forever}, func(w *world) {
		answers := make(chan struct{})
		w.onStart = func(run string) {
			if run == "r1" {
				<-answers
			}
		}
		w.bare()
		one := w.start()
		v := w.gateway.last()
		v.launch(launchOf("r1"))
		v.launch(launchOf("r2"))
		w.wait(time.Second)
		asked := time.Now()
		one.end()
		if took := time.Since(asked); took > 30*time.Second {
			t.Errorf("it took %v to stop", took)
		}
		w.outcomeOf("r2", agentv1.Outcome_OUTCOME_INTERRUPTED, "the worker was stopped")
		close(answers)
		w.start()
		w.outcomeOf("r1", agentv1.Outcome_OUTCOME_INTERRUPTED, "")
	})
}

// While the gateway is away for an hour, what runs goes on and ends, and all of
// it is told afterwards.
func TestAnHourAlone(t *testing.T) {
	output := text(20_000)
	script := map[string]fakerunner.Behaviour{"r1": {Duration: 30 * time.Minute, Output: []fakerunner.Chunk{{After: 20 * time.Minute, Data: output}}}}
	story(t, polite, script, func(w *world) {
		w.start()
		w.gateway.last().launch(launchOf("r1"))
		w.wait(time.Second)
		w.gateway.behave(func(m *manners) { m.down = true })
		w.gateway.last().hangUp()
		w.wait(time.Hour)
		w.gateway.behave(func(m *manners) { m.down = false })
		w.wait(2 * time.Minute)
		w.says(w.gateway.last(), "inventory r1/1=ENDED", "result r1/1 SUCCEEDED")
		if got := w.gateway.log("r1"); got != string(output) {
			t.Errorf("%d of %d bytes arrived", len(got), len(output))
		}
		if n := w.gateway.dialled(); n < 100 || n > 500 {
			t.Errorf("the worker dialed %d times in an hour, want some 240: a try each 15 s on average", n)
		}
		// A session that lasted makes the failures before it forgotten.
		for range 5 {
			w.wait(2 * time.Minute)
			cut := time.Now()
			w.gateway.last().hangUp()
			w.wait(time.Minute)
			if after := w.gateway.last().begun.Sub(cut); after > wire.BackoffBase {
				t.Errorf("the worker came back %v after the break of a good session", after)
			}
		}
	})
}

// A flood of output that nobody acknowledges holds up neither a kill nor its
// result, and never exceeds its credit.
func TestFloodDoesNotHoldUpAKill(t *testing.T) {
	flood := fakerunner.Behaviour{Duration: -1, Output: []fakerunner.Chunk{{Data: text(4 << 20)}}}
	quiet := manners{ackResults: true, credit: 1 << 10} // nothing to speak of, before both are there
	story(t, quiet, map[string]fakerunner.Behaviour{"r1": flood, "r2": flood}, func(w *world) {
		w.start()
		v := w.gateway.last()
		v.launch(launchOf("r1"))
		v.launch(launchOf("r2"))
		w.wait(5 * time.Second)
		v.send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_LogAck{LogAck: &agentv1.LogAck{
			Key: launchOf("none").GetKey(), Credit: 256 << 10, // some turns
		}}})
		w.wait(5 * time.Second)
		sent := map[string]int{}
		for _, m := range v.words() {
			sent[m.GetLogAppend().GetKey().GetRunId()] += len(m.GetLogAppend().GetData())
		}
		if sum := sent["r1"] + sent["r2"]; sum != 256<<10 {
			t.Errorf("%d bytes are on their way, want a credit's worth: %v", sum, sent)
		}
		if sent["r1"] == 0 || sent["r2"] == 0 {
			t.Errorf("logs do not take turns: %v", sent)
		}
		begun := time.Now()
		v.kill(launchOf("r1"), time.Minute)
		synctest.Wait()
		w.outcomeOf("r1", agentv1.Outcome_OUTCOME_KILLED, "")
		if took := time.Since(begun); took != 0 {
			t.Errorf("the kill took %v", took)
		}
	})
}

// Labels and the like are the same in each session; what the sessions share must
// not be changed by one of them.
func TestHelloIsStable(t *testing.T) {
	story(t, polite, nil, func(w *world) {
		w.start()
		first := w.gateway.last()
		first.hangUp()
		w.wait(time.Minute)
		a, b := proto.CloneOf(first.hello), proto.CloneOf(w.gateway.last().hello)
		if a.GetSessionEpoch() >= b.GetSessionEpoch() {
			t.Errorf("epochs %x and %x do not grow", a.GetSessionEpoch(), b.GetSessionEpoch())
		}
		a.SessionEpoch, b.SessionEpoch = 0, 0
		if !proto.Equal(a, b) {
			t.Errorf("hello changed from %v to %v", a, b)
		}
		if !strings.Contains(w.workers[0].log.String(), "no session; trying again") {
			t.Error("the log does not tell of the break")
		}
	})
}

// A worker tells in each session what its runner can hold attempts to, hands the limits
// of a task on, and refuses those that can't be kept: the leader, which had heard
// otherwise, has other workers.
func TestLimits(t *testing.T) {
	story(t, polite, map[string]fakerunner.Behaviour{"r1": {}}, func(w *world) {
		w.start()
		v := w.gateway.last()
		if e := v.hello.GetEnforcement(); e.GetMemory() != agentv1.Means_MEANS_CGROUP_V2 || e.GetTree() != agentv1.Means_MEANS_CGROUP_V2 || e.GetNote() != "" {
			t.Errorf("hello says %v", e)
		}
		l := launchOf("r1")
		l.Task.Limits = &agentv1.Limits{MemoryBytes: 1 << 30, CpuMillis: 250, Pids: 9}
		v.launch(l)
		w.wait(time.Second)
		w.outcomeOf("r1", agentv1.Outcome_OUTCOME_SUCCEEDED, "")
		if got, want := w.host.Specs()[0].Limits, (runner.Limits{Memory: 1 << 30, CPUMillis: 250, PIDs: 9}); got != want {
			t.Errorf("started with %+v, want %+v", got, want)
		}
		w.workers[0].end()

		w.host.SetEnforcement(runner.Enforcement{Memory: runner.MeansNone, Tree: runner.MeansProc, Note: "not\ndelegated" + strings.Repeat("\u00e9", 300)})
		w.start()
		v = w.gateway.last()
		e := v.hello.GetEnforcement()
		if e.GetMemory() != agentv1.Means_MEANS_NONE || e.GetTree() != agentv1.Means_MEANS_PROC || !strings.HasPrefix(e.GetNote(), "not delegated") || len(e.GetNote()) > 512 {
			t.Errorf("hello says %v", e)
		}
		l = launchOf("r2")
		l.Task.Limits = &agentv1.Limits{MemoryBytes: 1 << 30}
		v.launch(l)
		w.wait(time.Second)
		w.outcomeOf("r2", agentv1.Outcome_OUTCOME_REFUSED, "a limit can't be kept here: memory")
	})
}
