package lead

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// inventoryRequest asks a worker what it knows.
var inventoryRequest = &agentv1.GatewayMessage{
	Body: &agentv1.GatewayMessage_InventoryRequest{InventoryRequest: &agentv1.InventoryRequest{}},
}

// launch asks a worker to make the run's live attempt.
func launch(r *state.Run, now time.Time) *agentv1.GatewayMessage {
	a, p, task := r.Live(), r.Definition.Policy, &r.Definition.Task
	return &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Launch{Launch: &agentv1.Launch{
		Key: keyOf(r), Fence: a.Fence,
		Namespace: r.Job.Namespace, Job: r.Job.Name, TriggerId: r.Trigger, ScheduledAt: timestamppb.New(r.Nominal),
		Task: &agentv1.Task{
			Argv: task.Argv, Script: task.Script, Interpreter: task.Interpreter, Env: task.Env.Map(),
			WorkingDir: task.WorkingDir, User: task.User, Stdin: []byte(task.Stdin), Limits: limits(task.Limits),
		},
		Timeout: durationpb.New(p.Timeout), KillGrace: durationpb.New(p.KillGrace), LogLimitBytes: p.LogLimit,
		StartWithin: durationpb.New(a.Assigned.Add(p.StartWithin).Sub(now)), KillAfter: durationpb.New(p.KillAfter),
	}}}
}

// lease answers a ping that asks for leases.
func lease(p *agentv1.Ping, fences []uint64) *agentv1.GatewayMessage {
	return &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Lease{Lease: &agentv1.Lease{Seq: p.GetSeq(), Fences: fences}}}
}

// kill asks a worker to end the run's live attempt.
func kill(r *state.Run) *agentv1.GatewayMessage {
	why := r.CancelNote
	if r.CancelTime.IsZero() {
		why = "it did not start within the job's start_within"
	}
	return &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Kill{Kill: &agentv1.Kill{
		Key: keyOf(r), Fence: r.Live().Fence, Grace: durationpb.New(r.Definition.Policy.KillGrace), Reason: why,
	}}}
}

// strayGrace lies between TERM and KILL of an attempt that nobody wants.
const strayGrace = 10 * time.Second

// killStray asks a worker to end an attempt that is not its run's any more.
func killStray(a attempt) *agentv1.GatewayMessage {
	return &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Kill{Kill: &agentv1.Kill{
		Key: &agentv1.AttemptKey{RunId: a.run.String(), Attempt: uint32(a.number)}, Fence: a.fence, Grace: durationpb.New(strayGrace),
		Reason: "another attempt has taken its place, or its run is over or forgotten",
	}}}
}

// resultAck tells a worker that a result is on record.
func resultAck(m *agentv1.Result, unwanted bool) *agentv1.GatewayMessage {
	return &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_ResultAck{ResultAck: &agentv1.ResultAck{
		Key: m.GetKey(), Fence: m.GetFence(), Unwanted: unwanted,
	}}}
}

func keyOf(r *state.Run) *agentv1.AttemptKey {
	return &agentv1.AttemptKey{RunId: r.ID.String(), Attempt: uint32(r.Live().Number)}
}

// info is what a worker says of itself.
func info(h *agentv1.Hello) state.WorkerInfo {
	return state.WorkerInfo{
		Name: h.GetName(), Labels: h.GetLabels(), Slots: int(h.GetSlots()),
		AdvertiseHostname: h.GetAdvertiseHostname(), AdvertiseIP: h.GetAdvertiseIp(),
		Version: h.GetVersion(), OS: h.GetOs(), Arch: h.GetArch(),
	}
}

// limits of a task; nil is none.
func limits(l state.Limits) *agentv1.Limits {
	if l == (state.Limits{}) {
		return nil
	}
	return &agentv1.Limits{MemoryBytes: l.Memory, CpuMillis: l.CPUMillis, Pids: l.PIDs}
}

// enforcement is what a worker says that it can hold attempts to. Means of a newer
// version are taken for none: nobody here knows what they are good for.
func enforcement(m *agentv1.Enforcement) state.Enforcement {
	means := func(m agentv1.Means) state.Means {
		switch m {
		case agentv1.Means_MEANS_UNSPECIFIED:
			return state.MeansUnknown
		case agentv1.Means_MEANS_PROC:
			return state.MeansProc
		case agentv1.Means_MEANS_CGROUP_V2:
			return state.MeansCgroupV2
		case agentv1.Means_MEANS_NONE:
		}
		return state.MeansNone
	}
	return state.Enforcement{
		Memory: means(m.GetMemory()), CPU: means(m.GetCpu()), PIDs: means(m.GetPids()),
		Usage: means(m.GetUsage()), Tree: means(m.GetTree()), Note: cut(m.GetNote(), maxReason),
	}
}

// attemptOf is what a worker says of an attempt that has ended.
func attemptOf(m *agentv1.Result) state.Attempt {
	return state.Attempt{
		Outcome: outcome(m.GetOutcome()), ExitCode: int(m.GetExitCode()), Signal: cut(m.GetSignal(), maxSignal), Reason: cut(m.GetReason(), maxReason),
		Started: instant(m.GetStartedTime()), Finished: instant(m.GetFinishedTime()),
		LogBytes: m.GetLogBytes(), LogDropped: m.GetLogDroppedBytes(),
		CPUTime: m.GetCpuTime().AsDuration(), MaxRSS: m.GetMaxRssBytes(),
	}
}

// What a worker says is kept by all primaries, so it is kept short.
const (
	maxReason = 1024 // bytes
	maxSignal = 32
)

// cut returns s, or its beginning.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	return strings.ToValidUTF8(s[:limit], "\uFFFD") + "…"
}

// outcomes are the worker's words in ours.
var outcomes = map[agentv1.Outcome]state.Outcome{
	agentv1.Outcome_OUTCOME_SUCCEEDED:   state.OutcomeSucceeded,
	agentv1.Outcome_OUTCOME_FAILED:      state.OutcomeFailed,
	agentv1.Outcome_OUTCOME_NOT_STARTED: state.OutcomeNotStarted,
	agentv1.Outcome_OUTCOME_TIMED_OUT:   state.OutcomeTimedOut,
	agentv1.Outcome_OUTCOME_KILLED:      state.OutcomeCancelled,
	agentv1.Outcome_OUTCOME_INTERRUPTED: state.OutcomeInterrupted,
	agentv1.Outcome_OUTCOME_REFUSED:     state.OutcomeRefused,

	agentv1.Outcome_OUTCOME_LEASE_EXPIRED: state.OutcomeLeaseExpired,
}

// outcome takes a word that a newer worker may have for a failure.
func outcome(o agentv1.Outcome) state.Outcome {
	if is, ok := outcomes[o]; ok {
		return is
	}
	return state.OutcomeFailed
}

// The years that a worker's clock may plausibly show. What lies outside can't be
// stored either, and one such report would keep the leader from all others.
var (
	firstInstant = time.Unix(1, 0)
	lastInstant  = time.Date(2261, 12, 31, 0, 0, 0, 0, time.UTC)
)

// instant is a timestamp as the state keeps it; zero when it is not set, or is
// absurd.
func instant(t *timestamppb.Timestamp) time.Time {
	if t == nil || !t.IsValid() {
		return time.Time{}
	}
	at := t.AsTime()
	if at.Before(firstInstant) || at.After(lastInstant) {
		return time.Time{}
	}
	return at
}
