package cgroup

import (
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
