//go:build e2e

package e2e_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// metrics are the samples of /metrics by name and labels, as they are written
// there.
func (p *primary) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	code, text := p.get("/metrics")
	if code != http.StatusOK {
		t.Fatalf("/metrics says %d: %s", code, text)
	}
	samples := map[string]float64{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		space := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(strings.TrimSpace(line[space+1:]), 64)
		if err != nil {
			t.Fatalf("no number in %q", line)
		}
		samples[line[:space]] = value
	}
	return samples
}

// Whoever watches a primary sees whether it lives, whether it can take calls,
// and what it does.
func TestHealthAndMetrics(t *testing.T) {
	t.Parallel()
	w := newSilentWorld(t)
	w.start(t)
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/": 200, "/nothing": 404} {
		if code, text := w.get(path); code != want {
			t.Errorf("%s says %d %s, want %d", path, code, text, want)
		}
	}
	before := w.metrics(t)
	w.worker = newWorker(t, w.primary, "w1")
	w.worker.start(t, w.primary)
	w.put(t, every(w.script("tick", "echo tack"), time.Second))
	w.put(t, w.script("fails", "exit 3"))
	phase(t, w.awaitEnd(t, w.run(t, "fails")), schedv1.Phase_PHASE_FAILED)
	w.awaitRuns(t, "tick", "ticks have run", succeeded(3))

	// What a worker says of a run's end and of its log are two messages.
	await(t, "all that happened shows", func() (bool, any) {
		after := w.metrics(t)
		var still []string
		for name, least := range map[string]float64{
			`schedd_occurrences_total{decision="run"}`:   3,
			`schedd_decision_lateness_seconds_count`:     3,
			`schedd_runs_ended_total{phase="succeeded"}`: 3,
			`schedd_runs_ended_total{phase="failed"}`:    1,
			`schedd_leader_step_seconds_count`:           1,
			`schedd_proposals_total{result="agreed"}`:    3,
			`schedd_propose_seconds_count`:               3,
			`schedd_proposal_commands_count`:             3,
			`schedd_apply_seconds_count`:                 3,
			`schedd_applied_index`:                       3,
			`schedd_jobs`:                                2,
			`schedd_runs`:                                4,
			`schedd_sessions`:                            1,
			`schedd_sessions_total`:                      1,
			`schedd_log_bytes_total`:                     15,
			`schedd_api_calls_total{code="OK",method="/schedd.v1.JobService/PutJob"}`: 2,
		} {
			value, there := after[name]
			if !there || value-before[name] < least {
				still = append(still, name)
			}
		}
		return len(still) == 0, still
	})
	after := w.metrics(t)
	if after["schedd_leader"] != 1 || after["schedd_sessions_rejected_total"] != 0 || after["schedd_log_errors_total"] != 0 {
		t.Errorf("leader %v, rejected %v, log errors %v", after["schedd_leader"], after["schedd_sessions_rejected_total"], after["schedd_log_errors_total"])
	}
	for _, name := range []string{`schedd_decision_lateness_seconds_bucket{le="+Inf"}`, "schedd_snapshot_seconds_count", "process_resident_memory_bytes", "go_goroutines"} {
		if _, there := after[name]; !there {
			t.Errorf("there is no %s", name)
		}
	}
	w.worker.stop(t)
	await(t, "the session is over", func() (bool, any) {
		now := w.metrics(t)["schedd_sessions"]
		return now == 0, now
	})
}
