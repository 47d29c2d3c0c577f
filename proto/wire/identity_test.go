package wire_test

import (
	"bytes"
	"crypto/ed25519"
	"testing"

	"github.com/schedd/schedd/proto/wire"
)

// Ids and proofs outlive the versions of both ends: they never change.
func TestIdentityIsFixed(t *testing.T) {
	for seed, want := range map[byte]string{0: "w-copdsqhgjnkjc4ra", 1: "w-gr2q7gf5lh6pzfdn"} {
		key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
		if got := wire.WorkerID(key.Public().(ed25519.PublicKey)); got != want {
			t.Errorf("seed %d: id %s, want %s", seed, got, want)
		}
	}
	if got, want := wire.Proof([]byte("nonce"), 258), "schedd agent session v1\nnonce\x00\x00\x00\x00\x00\x00\x01\x02"; string(got) != want {
		t.Errorf("proof %q, want %q", got, want)
	}
}
