package runlog

import (
	"context"
	"fmt"
	"math/rand/v2"
)

// probeSize is how much Probe writes, in bytes: less may still fit on a disk that is
// full for all that matters.
const probeSize = 256 << 10

// Probe writes a log of nobody's, syncs and removes it, and returns why the disk does
// not take it. Where it lies differs from call to call. What it leaves behind when the
// process is killed is a log of no attempt, like any other.
func (s *Store) Probe(ctx context.Context) error {
	k := Key{Run: fmt.Sprintf("probe-%016x", rand.Uint64()), Attempt: 1, Fence: 1}
	data := make([]byte, probeSize)
	_, err := s.Append(k, 0, data, Checksum(data))
	if err == nil {
		_, err = s.Sync(ctx, k)
	}
	if gone := s.Remove(k); err == nil {
		err = gone
	}
	return err
}
