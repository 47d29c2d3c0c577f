//go:build !linux

package raftstore

// dropPages leaves it to the system which pages of a file it keeps.
func dropPages(string) error { return nil }
