package runlog

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// However much of it was written at once, what is left is the rest.
func TestRestOfParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.SliceOfN(rapid.Byte(), 0, 4)).Draw(t, "parts")
		all := bytes.Join(parts, nil)
		n := rapid.IntRange(0, len(all)).Draw(t, "written")
		left := behind(parts, n)
		if got := bytes.Join(left, nil); !bytes.Equal(got, all[n:]) {
			t.Fatalf("%q is left of %q behind %d, want %q", got, all, n, all[n:])
		}
		if n == len(all) && len(left) > 0 {
			t.Fatalf("%d parts are left of nothing", len(left))
		}
		if again := bytes.Join(parts, nil); !bytes.Equal(again, all) {
			t.Fatalf("the parts are %q now, and were %q", again, all)
		}
	})
}
