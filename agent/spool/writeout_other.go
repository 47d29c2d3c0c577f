//go:build !linux

package spool

import "os"

// writeOut leaves all to fsync.
func writeOut(*os.File, int64, int64, bool) error { return nil }
