package gateway

import (
	"errors"
	"io"
	"net"
	"syscall"

	"google.golang.org/grpc/mem"
)

// readable reads from a socket without a buffer while there is nothing to read: ten
// thousand connections say nothing most of the time. gRPC does so itself with those that it
// knows, and asks others for ReadOnReady.
type readable struct {
	raw syscall.RawConn
	try func(fd uintptr) (done bool) // is made once: each read would make it anew

	// Of the present read.
	size int
	pool mem.BufferPool
	buf  *[]byte
	n    int
	err  error
}

// newReadable returns nil for a connection that is no socket.
func newReadable(conn net.Conn) *readable {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	r := &readable{raw: raw}
	r.try = r.once
	return r
}

// once reads what is there. It is not done if that is nothing yet.
func (r *readable) once(fd uintptr) (done bool) {
	r.buf = r.pool.Get(r.size)
	for r.n, r.err = -1, syscall.EINTR; errors.Is(r.err, syscall.EINTR); {
		r.n, r.err = syscall.Read(int(fd), *r.buf)
	}
	if r.err == nil && r.n > 0 {
		return true
	}
	r.pool.Put(r.buf)
	r.buf = nil
	if r.err == nil {
		r.err = io.EOF
	}
	return !errors.Is(r.err, syscall.EAGAIN)
}

// read waits until there is something to read, and reads it into a buffer of the pool.
func (r *readable) read(size int, pool mem.BufferPool) (buf *[]byte, n int, err error) {
	r.size, r.pool = size, pool
	err = r.raw.Read(r.try)
	buf, n = r.buf, r.n
	if err == nil {
		err = r.err
	}
	r.pool, r.buf, r.n, r.err = nil, nil, 0, nil
	if err != nil {
		return nil, 0, err
	}
	return buf, n, nil
}

// ReadOnReady is [connection.Read] into a buffer that is taken when there is something to
// read. What it returns is gRPC's to give back.
func (c *connection) ReadOnReady(size int, pool mem.BufferPool) (buf *[]byte, n int, err error) {
	if c.readable != nil {
		buf, n, err = c.readable.read(size, pool)
	} else {
		buf = pool.Get(size)
		if n, err = c.Conn.Read(*buf); n == 0 {
			pool.Put(buf)
			buf = nil
		}
	}
	if err != nil {
		c.over()
	}
	return buf, n, err
}
