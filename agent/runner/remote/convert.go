package remote

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/schedd/schedd/agent/runner"
	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// Whatever isn't UTF-8 could not be sent, so what the host may have named in
// another way goes as bytes, and sentences for people are mended.

// showSpec leaves out the deadline by a clock that the runner does not share.
func showSpec(life uint64, s runner.Spec, shared bool) *runnerv1.StartRequest {
	if !shared {
		s.Deadline = 0
	}
	return &runnerv1.StartRequest{
		Life: life, Id: s.ID, Argv: s.Argv, Script: s.Script, Interpreter: s.Interpreter,
		Env: showEnv(s.Env), Dir: []byte(s.Dir), User: s.User, Stdin: s.Stdin, Output: []byte(s.Output),
		Timeout: durationpb.New(s.Timeout), KillGrace: durationpb.New(s.KillGrace), LeaseEnd: durationpb.New(s.LeaseEnd),
		Deadline: durationpb.New(s.Deadline), Limits: showLimits(s.Limits),
	}
}

func readSpec(m *runnerv1.StartRequest) runner.Spec {
	return runner.Spec{
		ID: m.GetId(), Argv: m.GetArgv(), Script: m.GetScript(), Interpreter: m.GetInterpreter(),
		Env: readEnv(m.GetEnv()), Dir: string(m.GetDir()), User: m.GetUser(), Stdin: m.GetStdin(), Output: string(m.GetOutput()),
		Timeout: m.GetTimeout().AsDuration(), KillGrace: runner.ClampGrace(m.GetKillGrace().AsDuration()), LeaseEnd: m.GetLeaseEnd().AsDuration(),
		Deadline: m.GetDeadline().AsDuration(), Limits: readLimits(m.GetLimits()),
	}
}

func showLimits(l runner.Limits) *runnerv1.Limits {
	if l == (runner.Limits{}) {
		return nil
	}
	return &runnerv1.Limits{MemoryBytes: l.Memory, CpuMillis: l.CPUMillis, Pids: l.PIDs}
}

func readLimits(m *runnerv1.Limits) runner.Limits {
	return runner.Limits{Memory: m.GetMemoryBytes(), CPUMillis: m.GetCpuMillis(), PIDs: m.GetPids()}
}

func showEnforcement(e runner.Enforcement) *runnerv1.Enforcement {
	return &runnerv1.Enforcement{
		Memory: runnerv1.Means(e.Memory), Cpu: runnerv1.Means(e.CPU), Pids: runnerv1.Means(e.PIDs),
		Usage: runnerv1.Means(e.Usage), Tree: runnerv1.Means(e.Tree), Note: sentence(e.Note),
	}
}

// readEnforcement takes means that it does not know for none: nobody can rely on
// them.
func readEnforcement(m *runnerv1.Enforcement) runner.Enforcement {
	if m == nil {
		return runner.Enforcement{Note: "the runner is of an older version, which knows no limits: let its attempts end, and restart it"}
	}
	means := func(m runnerv1.Means) runner.Means {
		if m < runnerv1.Means_MEANS_UNSPECIFIED || m > runnerv1.Means_MEANS_CGROUP_V2 {
			return runner.MeansNone
		}
		return runner.Means(m)
	}
	return runner.Enforcement{
		Memory: means(m.GetMemory()), CPU: means(m.GetCpu()), PIDs: means(m.GetPids()),
		Usage: means(m.GetUsage()), Tree: means(m.GetTree()), Note: m.GetNote(),
	}
}

func showLeases(ends map[string]time.Duration) *runnerv1.RenewRequest {
	m := &runnerv1.RenewRequest{}
	for id, end := range ends {
		m.Leases = append(m.Leases, &runnerv1.Lease{Id: id, End: durationpb.New(end)})
	}
	return m
}

func readLeases(m *runnerv1.RenewRequest) map[string]time.Duration {
	ends := map[string]time.Duration{}
	for _, l := range m.GetLeases() {
		ends[l.GetId()] = l.GetEnd().AsDuration()
	}
	return ends
}

func showEnv(env []string) (list [][]byte) {
	for _, kv := range env {
		list = append(list, []byte(kv))
	}
	return list
}

func readEnv(list [][]byte) (env []string) {
	if len(list) > 0 {
		env = make([]string, 0, len(list))
	}
	for _, kv := range list {
		env = append(env, string(kv))
	}
	return env
}

func showExit(e runner.Exit) *runnerv1.Exit {
	return &runnerv1.Exit{
		Code: int32(e.Code), Signal: e.Signal, TimedOut: e.TimedOut, Killed: e.Killed, Interrupted: e.Interrupted, LeaseExpired: e.LeaseExpired,
		Leftover: int32(e.Leftover), CpuTime: durationpb.New(e.CPUTime), MaxRssBytes: e.MaxRSS,
		StartedTime: showTime(e.Started), FinishedTime: showTime(e.Finished), Reason: sentence(e.Reason),
	}
}

func readExit(m *runnerv1.Exit) runner.Exit {
	return runner.Exit{
		Code: int(m.GetCode()), Signal: m.GetSignal(), TimedOut: m.GetTimedOut(), Killed: m.GetKilled(), Interrupted: m.GetInterrupted(), LeaseExpired: m.GetLeaseExpired(),
		Leftover: int(m.GetLeftover()), CPUTime: m.GetCpuTime().AsDuration(), MaxRSS: m.GetMaxRssBytes(),
		Started: readTime(m.GetStartedTime()), Finished: readTime(m.GetFinishedTime()), Reason: m.GetReason(),
	}
}

func showTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func readTime(m *timestamppb.Timestamp) time.Time {
	if m == nil {
		return time.Time{}
	}
	return m.AsTime()
}

func sentence(s string) string { return strings.ToValidUTF8(s, "?") }
