//go:build !linux

package clusternet

import (
	"net"
	"time"
)

// setUnackedTimeout does nothing: other systems have their own limits, which are
// longer.
func setUnackedTimeout(*net.TCPConn, time.Duration) error { return nil }
