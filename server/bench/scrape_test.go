package bench

import (
	"strings"
	"testing"
)

func TestSample(t *testing.T) {
	const text = `# HELP schedd_jobs Jobs defined.
# TYPE schedd_jobs gauge
schedd_jobs 12
schedd_jobs_more 7
schedd_runs_ended_total{phase="succeeded"} 3
schedd_runs_ended_total{phase="with } and space 9"} 1.5e+01
schedd_bad x
`
	for name, want := range map[string]float64{"schedd_jobs": 12, "schedd_jobs_more": 7, "schedd_runs_ended_total": 18} {
		if got, err := sample(strings.NewReader(text), name); err != nil || got != want {
			t.Errorf("%s is %v, %v; want %v", name, got, err, want)
		}
	}
	for _, name := range []string{"schedd_job", "schedd_bad", "nothing"} {
		if got, err := sample(strings.NewReader(text), name); err == nil {
			t.Errorf("%s is %v, want an error", name, got)
		}
	}
}
