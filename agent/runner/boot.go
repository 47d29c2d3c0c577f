package runner

import (
	"os"
	"strings"
)

// BootID returns a name for this boot of the host, or nothing where the system has
// none. No process outlives it.
func BootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
