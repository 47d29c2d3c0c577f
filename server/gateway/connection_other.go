//go:build !linux

package gateway

import "net"

// readable is for systems whose sockets can be read without a buffer that waits.
type readable struct{}

func newReadable(net.Conn) *readable { return nil }
