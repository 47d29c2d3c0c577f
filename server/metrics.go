package server

import (
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/gateway"
	"github.com/schedd/schedd/server/lead"
	"github.com/schedd/schedd/server/peer"
)

// metrics is what Prometheus is told of one primary. Each primary has a
// registry of its own, so that a process may hold several.
type metrics struct {
	registry *prometheus.Registry

	occurrences *prometheus.CounterVec
	lateness    prometheus.Histogram
	runsEnded   *prometheus.CounterVec
	step        prometheus.Histogram
	proposals   *prometheus.CounterVec
	propose     prometheus.Histogram
	batch       prometheus.Histogram
	apply       prometheus.Histogram
	snapshot    prometheus.Histogram
	calls       *prometheus.CounterVec
	callTime    *prometheus.HistogramVec
}

var _ lead.Observer = (*metrics)(nil)

// fine are buckets from a tenth of a millisecond to ten seconds.
var fine = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

func newMetrics() *metrics {
	m := &metrics{
		registry:    prometheus.NewRegistry(),
		occurrences: counters("occurrences_total", "Occurrences decided by this leader.", "decision"),
		lateness: histogram("decision_lateness_seconds", "How long after its nominal instant an occurrence was decided.",
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 3600}),
		runsEnded: counters("runs_ended_total", "Runs that ended, by phase.", "phase"),
		step:      histogram("leader_step_seconds", "How long one step of the leader took.", fine),
		proposals: counters("proposals_total", "Entries proposed to the log by this primary.", "result"),
		propose:   histogram("propose_seconds", "From proposing an entry to its answer.", fine),
		batch:     histogram("proposal_commands", "Commands in one entry.", prometheus.ExponentialBuckets(1, 2, 11)),
		apply:     histogram("apply_seconds", "How long the state was locked to apply entries.", prometheus.ExponentialBuckets(0.000001, 4, 11)),
		snapshot:  histogram("snapshot_seconds", "How long writing a snapshot took.", prometheus.ExponentialBuckets(0.001, 4, 9)),
		calls:     counters("api_calls_total", "Calls of the API.", "method", "code"),
		callTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "schedd", Name: "api_call_seconds", Help: "How long calls of the API took, streams from their beginning to their end.", Buckets: fine,
		}, []string{"method"}),
	}
	m.registry.MustRegister(m.occurrences, m.lateness, m.runsEnded, m.step, m.proposals, m.propose, m.batch, m.apply, m.snapshot,
		m.calls, m.callTime, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	// So that rates begin at 0.
	for _, d := range decisionNames {
		m.occurrences.WithLabelValues(d)
	}
	for _, result := range []string{agreed, failed} {
		m.proposals.WithLabelValues(result)
	}
	for p := state.Succeeded; p <= state.Missed; p++ {
		m.runsEnded.WithLabelValues(label(p))
	}
	return m
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "schedd", Name: name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "schedd", Name: name, Help: help, Buckets: buckets})
}

// What became of a proposal.
const (
	agreed = "agreed"
	failed = "failed"
)

var decisionNames = map[state.Decision]string{
	state.DecidedRun:     "run",
	state.DecidedSkipped: "skipped",
	state.DecidedMissed:  "missed",
}

// Decided implements [lead.Observer].
func (m *metrics) Decided(d state.Decided, late time.Duration) {
	m.occurrences.WithLabelValues(decisionNames[d.Decision]).Add(float64(d.Count))
	if d.Decision == state.DecidedRun {
		m.lateness.Observe(max(late, 0).Seconds())
	}
}

// Ended implements [lead.Observer].
func (m *metrics) Ended(p state.Phase) { m.runsEnded.WithLabelValues(label(p)).Inc() }

// label is a phase as the value of a label: one word.
func label(p state.Phase) string { return strings.ReplaceAll(p.String(), " ", "_") }

// Stepped implements [lead.Observer].
func (m *metrics) Stepped(d time.Duration) { m.step.Observe(d.Seconds()) }

// called counts one call of the API.
func (m *metrics) called(method string, code codes.Code, took time.Duration) {
	m.calls.WithLabelValues(method, code.String()).Inc()
	m.callTime.WithLabelValues(method).Observe(took.Seconds())
}

// store observes the replicated state.
func (m *metrics) store() raftstore.Observer {
	return raftstore.Observer{
		Proposed: func(commands, _ int, took time.Duration, err error) {
			result := agreed
			if err != nil {
				result = failed
			}
			m.proposals.WithLabelValues(result).Inc()
			m.propose.Observe(took.Seconds())
			m.batch.Observe(float64(commands))
		},
		Applied:     func(_ int, took time.Duration) { m.apply.Observe(took.Seconds()) },
		Snapshotted: func(_ int64, took time.Duration) { m.snapshot.Observe(took.Seconds()) },
	}
}

// watch adds what is read when Prometheus asks.
func (m *metrics) watch(s *raftstore.Store, g *gateway.Server, u *peer.Uplink, h *peer.Hub) {
	of := func(f func(*state.State) int) func() float64 {
		return func() (n float64) {
			s.View(func(st *state.State) { n = float64(f(st)) })
			return n
		}
	}
	m.gauge("jobs", "Jobs defined.", of((*state.State).NumJobs))
	m.gauge("runs", "Runs in memory: those that have not ended, and those that ended lately.", of((*state.State).NumRuns))
	m.gauge("runs_active", "Runs that have not ended.", of((*state.State).NumAllActive))
	m.gauge("raft_log_bytes", "Bytes of the entries in the Raft log.", func() float64 { return float64(s.LogBytes()) })
	m.gauge("applied_index", "Last log entry applied.", func() float64 { return float64(s.Status().AppliedIndex) })
	m.gauge("snapshot_index", "Last log entry in the newest snapshot: a start applies those behind it.", func() float64 { return float64(s.SnapshotIndex()) })
	m.gauge("leader", "1 while this primary leads.", func() float64 {
		if st := s.Status(); st.LeaderID == st.ID {
			return 1
		}
		return 0
	})
	m.gauge("linked", "1 while this primary has a link to the leader.", func() float64 {
		if linked, _ := u.Linked(); linked {
			return 1
		}
		return 0
	})
	m.gauge("primaries_linked", "Primaries that have a link to this one, itself included: all of the group while it leads, 0 otherwise.",
		func() float64 { return float64(len(h.Primaries())) })
	m.gauge("primaries", "Primaries in the group.", func() float64 { return float64(len(s.Status().Servers)) })
	m.gauge("clock_offset_seconds", "The greatest difference of a primary's clock from this one's, as measured while it leads.", func() float64 {
		var most time.Duration
		for _, p := range h.Primaries() {
			most = max(most, p.ClockOffset.Abs())
		}
		return most.Seconds()
	})
	m.gauge("sessions", "Workers connected to this primary.", func() float64 { return float64(g.Stats().Sessions) })
	m.total("sessions_total", "Sessions of workers begun.", func() uint64 { return g.Stats().Welcomed })
	m.total("sessions_rejected_total", "Sessions of workers refused.", func() uint64 { return g.Stats().Rejected })
	m.total("log_bytes_total", "Bytes of output received.", func() uint64 { return g.Stats().LogBytes })
	m.total("log_errors_total", "How often output could not be kept.", func() uint64 { return g.Stats().LogErrors })
}

// watchClock adds how far the state's clock is ahead of this primary's: what came due
// meanwhile is decided, so nothing fires for as long.
func (m *metrics) watchClock(view func(func(*state.State)), clock func() time.Time) {
	m.gauge("state_clock_ahead_seconds", "How far the clock of the replicated state is ahead of this primary's: by a leader whose clock was ahead, or since this one is behind.", func() float64 {
		var ahead time.Duration
		view(func(st *state.State) { ahead = st.Now().Sub(clock().Round(0)) })
		return max(ahead, 0).Seconds()
	})
}

// watchLogs adds what is read of the run logs.
func (m *metrics) watchLogs(condition func() peer.Condition) {
	m.gauge("log_disk_failing", "1 while this primary's disk does not take the output of runs.", func() float64 {
		if condition().Failing {
			return 1
		}
		return 0
	})
	m.gauge("logs_missing", "Logs of which this primary should keep a copy and lacks something that others have; NaN while that is not known.", func() float64 {
		is := condition()
		if len(is.LogsAmong) == 0 {
			return math.NaN()
		}
		return float64(is.LogsMissing)
	})
}

func (m *metrics) gauge(name, help string, f func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "schedd", Name: name, Help: help}, f))
}

func (m *metrics) total(name, help string, f func() uint64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "schedd", Name: name, Help: help},
		func() float64 { return float64(f()) }))
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
