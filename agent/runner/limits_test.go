//go:build unix

package runner

import (
	"testing"

	"github.com/schedd/schedd/agent/runner/cgroup"
)

// Whose limits a job could change says so, to all who look at the worker.
func TestNoteOfEnforcement(t *testing.T) {
	for _, test := range []struct {
		groups *cgroup.Tree
		root   bool
		want   string
	}{
		{new(cgroup.Tree), true, ""},
		{new(cgroup.Tree), false, bySelf},
		{nil, false, "switched off"},
	} {
		if e := enforcement(test.groups, "switched off", test.root); e.Note != test.want {
			t.Errorf("groups %v, root %v: note %q, want %q", test.groups != nil, test.root, e.Note, test.want)
		}
	}
}
