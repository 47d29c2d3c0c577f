package runner

import (
	"time"

	"golang.org/x/sys/unix"
)

// Uptime returns the time since this host was booted, the time in which it was
// suspended included: unlike Go's timers, which stand still then. False: there is no
// such clock, and nobody can keep a lease here.
func Uptime() (time.Duration, bool) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, false
	}
	return time.Duration(ts.Nano()), true
}
