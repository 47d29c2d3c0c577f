package baseline

import "golang.org/x/sys/unix"

// dsync has each write wait as fdatasync(2) does.
const dsync = unix.O_DSYNC
