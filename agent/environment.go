package agent

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/schedd/schedd/agent/runner"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// environment returns what the process of an attempt finds in its environment,
// sorted, each name once: where programs are, what the job adds, and what tells the
// run. The last win, so that a process can rely on them; the agent's own environment
// is none of its business. What a login adds the runner knows.
func environment(l *agentv1.Launch, worker string) []string {
	const ours = 9 // names
	env := make(map[string]string, ours+len(l.GetTask().GetEnv()))
	env["PATH"] = runner.DefaultPath
	maps.Copy(env, l.GetTask().GetEnv())
	scheduled := ""
	if t := l.GetScheduledAt(); t != nil {
		scheduled = t.AsTime().Format(time.RFC3339Nano)
	}
	for _, v := range [...]struct{ name, value string }{
		{"SCHEDD_RUN_ID", l.GetKey().GetRunId()},
		{"SCHEDD_ATTEMPT", strconv.FormatUint(uint64(l.GetKey().GetAttempt()), 10)},
		{"SCHEDD_FENCE", strconv.FormatUint(l.GetFence(), 10)},
		{"SCHEDD_JOB", l.GetJob()},
		{"SCHEDD_NAMESPACE", l.GetNamespace()},
		{"SCHEDD_TRIGGER", l.GetTriggerId()},
		{"SCHEDD_SCHEDULED_AT", scheduled},
		{"SCHEDD_WORKER", worker},
	} {
		env[v.name] = v.value
	}
	list := make([]string, 0, len(env))
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}

// marks returns the variables by which the processes of an attempt of this worker are
// recognised, by its ID.
func marks(worker, id string) []string {
	run, attempt, _ := strings.Cut(id, "/")
	return []string{"SCHEDD_RUN_ID=" + run, "SCHEDD_ATTEMPT=" + attempt, "SCHEDD_WORKER=" + worker}
}
