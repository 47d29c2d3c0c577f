//go:build !linux

package runner

import "time"

var begun = time.Now()

// Uptime returns the time since this process began, and false: there is no clock here
// that goes on while the host is suspended, so nobody can keep a lease.
func Uptime() (time.Duration, bool) { return time.Since(begun), false }
