package bench

import (
	"testing"

	"github.com/schedd/schedd/server/bench/baseline"
)

// begin runs a process as a worker would.
func begin(t *testing.T, argv []string, env ...string) {
	t.Helper()
	if err := baseline.Run(t.Context(), argv, env...); err != nil {
		t.Fatal(err)
	}
}
