//go:build !linux

package slack

// Widen does nothing: elsewhere timers are what they are.
func Widen(...string) error { return nil }

// Usual calls f.
func Usual(f func()) { f() }
