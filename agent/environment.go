package agent

import (
	"maps"
	"os"
	"os/user"
	"slices"
	"strconv"
	"time"

	"github.com/schedd/schedd/agent/runner"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// environment returns all that the process of an attempt finds in its
// environment, sorted, each name once: a login's few variables, what the job
// adds, and what tells the run. The last win, so that a process can rely on
// them; the agent's own environment is none of its business.
//
// account is whom the process runs as; nil leaves the login's variables to the
// runner.
func environment(l *agentv1.Launch, worker string, account *user.User) []string {
	env := map[string]string{"PATH": runner.DefaultPath}
	if account != nil {
		env["HOME"], env["USER"], env["LOGNAME"] = account.HomeDir, account.Username, account.Username
	}
	maps.Copy(env, l.GetTask().GetEnv())
	scheduled := ""
	if t := l.GetScheduledAt(); t != nil {
		scheduled = t.AsTime().Format(time.RFC3339Nano)
	}
	maps.Copy(env, map[string]string{
		"SCHEDD_RUN_ID":       l.GetKey().GetRunId(),
		"SCHEDD_ATTEMPT":      strconv.FormatUint(uint64(l.GetKey().GetAttempt()), 10),
		"SCHEDD_FENCE":        strconv.FormatUint(l.GetFence(), 10),
		"SCHEDD_JOB":          l.GetJob(),
		"SCHEDD_NAMESPACE":    l.GetNamespace(),
		"SCHEDD_TRIGGER":      l.GetTriggerId(),
		"SCHEDD_SCHEDULED_AT": scheduled,
		"SCHEDD_WORKER":       worker,
	})
	list := make([]string, 0, len(env))
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}

// account returns whom a process runs as, or nil when that can't be told; then
// the runner says why it can't.
func account(name string) *user.User {
	u, err := user.Current()
	if name != "" {
		if u, err = user.Lookup(name); err != nil {
			u, err = user.LookupId(name)
		}
	}
	if err != nil {
		return nil
	}
	return u
}

// workingDir returns where a process starts that is not told where: at home, if
// there is such a place.
func workingDir(task *agentv1.Task, account *user.User) string {
	if dir := task.GetWorkingDir(); dir != "" {
		return dir
	}
	if account != nil {
		if info, err := os.Stat(account.HomeDir); err == nil && info.IsDir() {
			return account.HomeDir
		}
	}
	return "/"
}
