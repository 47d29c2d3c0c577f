package cgroup

import "golang.org/x/sys/unix"

// delegated reports whether systemd has delegated a group: it says so in an extended
// attribute, whose name depends on its version.
func delegated(dir string) bool {
	value := make([]byte, 8)
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		if n, err := unix.Getxattr(dir, name, value); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return false
}
