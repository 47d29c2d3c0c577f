package runlog

import (
	"testing"

	"pgregory.net/rapid"
)

// Wherever data are divided, the checksums of the parts make that of the whole.
func TestChecksumsAreJoined(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := printed(key, 0, rapid.SampledFrom([]int{0, 1, 300, maxFrame, maxFrame + 1, MaxAppend}).Draw(t, "bytes"))
		at := rapid.IntRange(0, len(data)).Draw(t, "at")
		a, b := Checksum(data[:at]), Checksum(data[at:])
		if got, want := joined(a, b, len(data)-at), Checksum(data); got != want {
			t.Fatalf("%d bytes and %d: %08x, want %08x", at, len(data)-at, got, want)
		}
	})
}

// The checksums of pieces make that of all, and each frame's, whatever it starts from.
func TestPiecesHaveTheChecksumsOfFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]int{1, 5, maxFrame - 1, maxFrame, maxFrame + 1, 3*maxFrame + 7, MaxAppend}).Draw(t, "bytes")
		data, seed := printed(key, 0, size), rapid.Uint32().Draw(t, "seed")
		each, all := sumPieces(data)
		if want := Checksum(data); all != want {
			t.Fatalf("all of %d bytes: %08x, want %08x", size, all, want)
		}
		off := rapid.Int64Range(0, 1<<50).Draw(t, "off")
		for i := 0; len(data) > 0; i++ {
			f := frame{kind: kindData, off: off, data: data[:min(len(data), maxFrame)]}
			head := appendHead(nil, seed, f, each[i])
			if got, want := string(head), string(appendFrame(nil, seed, f)[:frameHeader]); got != want {
				t.Fatalf("piece %d: %x, want %x", i, got, want)
			}
			data = data[len(f.data):]
		}
	})
}
