//go:build !linux

package journal

import "os"

// datasync is the fsync of systems that have no other.
func datasync(f *os.File) error { return f.Sync() }
