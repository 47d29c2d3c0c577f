package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// programParts returns the parts of the program that are mapped.
func programParts() ([]part, error) {
	name, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("looking which program this is: %w", err)
	}
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil, fmt.Errorf("looking where the program is in memory: %w", err)
	}
	defer func() { _ = smaps.Close() }() // it was read only
	return readParts(smaps, name)
}

// giveBack gives back the memory of a part of the program. It is none of Go's, and is in
// its place as long as the process lives. Where the kernel refuses, it stays.
func (p part) giveBack() {
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, p.from, p.to-p.from, unix.MADV_DONTNEED)
}
