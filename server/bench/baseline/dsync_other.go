//go:build !linux

package baseline

import "os"

// dsync is what is most like it in all systems.
const dsync = os.O_SYNC
