package deploy_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// What a unit runs is started again whenever it ends, however often it did: above all the
// runner, since nobody else ends what a runner that was killed has left.
func TestUnitsStartAgain(t *testing.T) {
	units, err := filepath.Glob("systemd/*.service")
	if err != nil || len(units) < 3 {
		t.Fatalf("the units are %q, %v; want those of schedd, schedagent and its runner", units, err)
	}
	for _, unit := range units {
		lines := strings.Split(read(t, unit), "\n")
		for _, want := range []string{"Restart=always", "StartLimitIntervalSec=0"} {
			found := false
			for _, line := range lines {
				found = found || strings.TrimSpace(line) == want
			}
			if !found {
				t.Errorf("%s does not say %s", unit, want)
			}
		}
	}
}
