package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

const (
	// calmly is how many bytes may be allocated between two looks by a primary that is at
	// rest: pings and what is told to Prometheus take less.
	calmly = 4 << 20
	// worthwhile is how many bytes of the program are mapped anew before they are given back
	// again. What a primary at rest runs is less.
	worthwhile = 4 << 20
)

// giveBackProgram gives back the memory of those parts of the program that a primary at
// rest does not run. Whatever was run once, and what lies around it, stays mapped
// otherwise, and counts as memory of the process: most of the program, some 25 MB. They are
// in the page cache all the same, from where they are mapped again as they are run.
func giveBackProgram(ctx context.Context) {
	left := int64(0)
	eachLook(ctx, func(before, now heap) {
		if now.allocated-before.allocated < calmly {
			left = unmapProgram(left, worthwhile)
		}
	})
}

// unmapProgram gives back what is mapped of the program, if that is so many bytes more than
// were left the last time. It returns how many are left. Where the system tells nothing of
// that it does nothing.
func unmapProgram(left, least int64) int64 {
	parts, err := programParts()
	if err != nil || residentOf(parts)-left < least {
		return left
	}
	for _, p := range parts {
		p.giveBack()
	}
	if parts, err = programParts(); err != nil {
		return left
	}
	return residentOf(parts)
}

// part is a mapped part of a file that nobody can write to and that is as it is in the
// file, so that no more is lost with it than a place in memory.
type part struct {
	from, to uintptr
	resident int64 // bytes
}

func residentOf(parts []part) (bytes int64) {
	for _, p := range parts {
		bytes += p.resident
	}
	return bytes
}

// readParts reads those of a file from the description of all memory that the kernel gives
// (smaps, see proc_pid_smaps(5)). It reads no further than to the end of the file's: to
// describe a large heap takes the kernel a while.
func readParts(smaps io.Reader, file string) (parts []part, err error) {
	lines := bufio.NewScanner(smaps)
	var p part
	found, fixed := false, false // one of the file, which nobody can write to
	changed := int64(0)          // of that, in memory
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 {
			continue
		}
		if !strings.HasSuffix(fields[0], ":") {
			is := len(fields) > 5 && strings.Join(fields[5:], " ") == file
			if found && !is {
				break
			}
			found, fixed = is, is && !strings.Contains(fields[1], "w")
			if _, err := fmt.Sscanf(fields[0], "%x-%x", &p.from, &p.to); err != nil {
				return nil, fmt.Errorf("reading %q: %w", lines.Text(), err)
			}
			continue
		}
		if !fixed || len(fields) < 2 || !slices.Contains([]string{"Rss:", "Anonymous:", "Swap:"}, fields[0]) {
			continue
		}
		kilobytes, err := strconv.ParseInt(fields[1], 10, 64)
		switch {
		case err != nil:
			return nil, fmt.Errorf("reading %q: %w", lines.Text(), err)
		case fields[0] == "Rss:":
			p.resident = kilobytes << 10
		case fields[0] == "Anonymous:":
			changed = kilobytes
		case changed+kilobytes == 0: // in memory, or swapped out
			parts = append(parts, p)
		}
	}
	return parts, lines.Err()
}
