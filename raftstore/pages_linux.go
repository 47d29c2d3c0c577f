package raftstore

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// dropPages has the pages of a file leave this process, where it is mapped to be read by
// all. The kernel keeps them as it keeps those of any file, and they are back when they are
// read. The caller sees to it that nobody maps the file anew meanwhile.
func dropPages(path string) error {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("looking where %s is mapped: %w", path, err)
	}
	for line := range strings.Lines(string(maps)) {
		from, to, is := mappedAt(line, path)
		if !is {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("giving back the pages of %s: %w", path, errno)
		}
	}
	return nil
}

// mappedAt reads a line of what the kernel tells of mappings:
//
//	7f5e3c000000-7f5e40000000 r--s 00000000 fe:00 1837   /var/lib/schedd/raft/raft.db
func mappedAt(line, path string) (from, to uintptr, is bool) {
	var perms string
	if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perms); n != 3 || perms != "r--s" {
		return 0, 0, false
	}
	return from, to, from < to && strings.HasSuffix(strings.TrimSuffix(line, "\n"), " "+path)
}
