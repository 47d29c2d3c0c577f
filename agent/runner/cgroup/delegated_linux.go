package cgroup

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// delegated reports whether a group was delegated to this process. systemd says so in
// an extended attribute, whose name depends on its version, and one of which only root
// can read. To others it delegates by giving them the group, and not that above it.
func delegated(dir string) bool {
	value := make([]byte, 8)
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		if n, err := unix.Getxattr(dir, name, value); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return os.Geteuid() != 0 && boundary(owner(dir), owner(filepath.Dir(dir)), os.Geteuid())
}

// boundary reports whether what is me's ends above a group: a group whose parent is
// me's too is managed by whoever has that.
func boundary(group, above, me int) bool { return group == me && above != me }

// owner returns the user of a directory, -1 when that can't be told.
func owner(dir string) int {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return -1
	}
	return int(st.Uid)
}
