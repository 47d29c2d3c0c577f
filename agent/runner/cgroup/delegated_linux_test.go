package cgroup

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// systemd says that it has delegated a group in an attribute of its directory.
func TestDelegatedByAttribute(t *testing.T) {
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		dir := t.TempDir()
		if delegated(dir) {
			t.Errorf("%s: delegated without the attribute", name)
		}
		for value, want := range map[string]bool{"0": false, "1": true, "10": false} {
			if err := unix.Setxattr(dir, name, []byte(value), 0); err != nil {
				t.Logf("no attribute %s here: %v", name, err)
				break
			}
			if got := delegated(dir); got != want {
				t.Errorf("%s is %q: %v, want %v", name, value, got, want)
			}
			if err := unix.Removexattr(dir, name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// To a user who is not root a group is delegated that belongs to them, below one that
// does not.
func TestDelegatedByOwner(t *testing.T) {
	const me, root, nobody = 1000, 0, -1
	for _, test := range []struct {
		group, above int
		want         bool
	}{{me, root, true}, {me, me, false}, {root, root, false}, {root, me, false}, {nobody, nobody, false}} {
		if got := boundary(test.group, test.above, me); got != test.want {
			t.Errorf("a group of %d below one of %d: %v, want %v", test.group, test.above, got, test.want)
		}
	}
	if got := owner(t.TempDir()); got != os.Geteuid() {
		t.Errorf("a directory of ours belongs to %d", got)
	}
	if got := owner("/no/such/directory"); got != -1 {
		t.Errorf("no directory belongs to %d", got)
	}
}
