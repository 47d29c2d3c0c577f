package main

import (
	"runtime"
	"slices"
	"strings"
	"testing"
)

// What is read is the parts of the program that nobody has changed, and nothing behind it.
func TestReadParts(t *testing.T) {
	const smaps = `00400000-01022000 r-xp 00000000 fe:00 10428716    /opt/my schedd
Size:              12424 kB
Rss:               11720 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me
01022000-01def000 r--p 00c22000 fe:00 10428716    /opt/my schedd
Rss:               12524 kB
Anonymous:             0 kB
Swap:                  0 kB
01dee000-01def000 r--p 019ee000 fe:00 10428716    /opt/my schedd
Rss:                   0 kB
Anonymous:             0 kB
Swap:                  4 kB
01def000-01e00000 r--p 019ef000 fe:00 10428716    /opt/my schedd
Rss:                  68 kB
Anonymous:            68 kB
Swap:                  0 kB
01e00000-01e89000 rw-p 01a00000 fe:00 10428716    /opt/my schedd
Rss:                 548 kB
Anonymous:             0 kB
Swap:                  0 kB
01e89000-01eff000 rw-p 00000000 00:00 0
Rss:                 120 kB
Anonymous:           120 kB
c000000000-c004000000 rw-p 00000000 00:00 0    [anon: Go: heap]
Rss: as long as it takes
`
	parts, err := readParts(strings.NewReader(smaps), "/opt/my schedd")
	want := []part{{0x400000, 0x1022000, 11720 << 10}, {0x1022000, 0x1def000, 12524 << 10}}
	if err != nil || !slices.Equal(parts, want) {
		t.Errorf("%v, %v; want %v", parts, err, want)
	}
	if n := residentOf(parts); n != (11720+12524)<<10 {
		t.Errorf("%d bytes are mapped", n)
	}
	if parts, err := readParts(strings.NewReader(smaps[:strings.Index(smaps, "c000000000")]), "/opt/other"); err != nil || parts != nil {
		t.Errorf("of another program there is %v, %v", parts, err)
	}
}

// A description that makes no sense is none.
func TestReadPartsOfNothing(t *testing.T) {
	for _, smaps := range []string{
		"heap r-xp 00000000 fe:00 1 /opt/schedd\n",
		"00400000-01022000 r-xp 00000000 fe:00 1 /opt/schedd\nRss: many kB\n",
	} {
		if parts, err := readParts(strings.NewReader(smaps), "/opt/schedd"); err == nil {
			t.Errorf("%q was read as %v", smaps, parts)
		}
	}
}

// What was given back is less, and is not given back again before it has grown; the
// program goes on.
func TestUnmapProgram(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("other systems do not tell what is mapped")
	}
	mapped := func() int64 {
		parts, err := programParts()
		if err != nil || len(parts) == 0 {
			t.Fatalf("the program is in %v, %v", parts, err)
		}
		return residentOf(parts)
	}
	const least = 1 << 20
	before := mapped()
	if left := unmapProgram(before, least); left != before {
		t.Errorf("%d bytes were left, and %d when there was nothing to give back", before, left)
	}
	left := unmapProgram(0, least)
	if now := mapped(); now > before*3/4 || left > before*3/4 {
		t.Errorf("%d bytes of the program are mapped, %d were before, and it says %d", now, before, left)
	}
}
