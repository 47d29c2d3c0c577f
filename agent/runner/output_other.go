//go:build unix && !linux

package runner

import (
	"errors"
	"fmt"
	"runtime"
)

// openOwned needs Linux, as a runner for an agent of another user does.
func openOwned(string, *Owner) (int, error) {
	return -1, fmt.Errorf("telling whose file it is on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
