//go:build !linux

package runner

import "time"

// Uptime returns the time since this host was booted, the time in which it was
// suspended included. False: there is no such clock, and nobody can keep a lease here.
func Uptime() (time.Duration, bool) { return 0, false }
