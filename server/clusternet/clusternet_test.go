package clusternet_test

import (
	"testing"
)

// modes are how a cluster port can be: with the key, and without.
var modes = map[string][]byte{"with a key": theKey, "without a key": nil}

func TestOnePortCarriesBoth(t *testing.T) {
	for name, key := range modes {
		t.Run(name, func(t *testing.T) {
			a, b := startTCP(t, "a", key), startTCP(t, "b", key)
			if err := a.call(t, b.address); err != nil {
				t.Errorf("gRPC: %v", err)
			}
			if err := a.stream(t, b.address); err != nil {
				t.Errorf("Raft: %v", err)
			}
		})
	}
}
