package faultnet

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// readBuffer is asked of the kernel for what has come and was not taken yet,
	// so that a sender feels the bottleneck and not megabytes in front of it. It
	// takes some packets of 1500 bytes; where they are larger, as on most
	// loopbacks, TCP crawls.
	readBuffer = 16 << 10
	// window bounds the chunks of one connection that are on the wire: 1 MiB.
	window = 1 << 20 / chunk
)

// Why a pair ends, other than that both sides have said all.
var (
	errReset = errors.New("reset")
	errIdle  = errors.New("idle for too long")
)

// pair is a connection through a proxy: two of TCP, and one flow each way
// between them.
type pair struct {
	near, far net.Conn
	cut       context.CancelCauseFunc
	heard     atomic.Pointer[time.Time] // when something was carried last
}

func newPair(near, far net.Conn, cut context.CancelCauseFunc) *pair {
	for _, conn := range []net.Conn{near, far} {
		if c, ok := conn.(interface{ SetReadBuffer(int) error }); ok {
			_ = c.SetReadBuffer(readBuffer) // without it the queue is longer
		}
	}
	c := &pair{near: near, far: far, cut: cut}
	c.hear()
	return c
}

func (c *pair) hear() {
	now := time.Now()
	c.heard.Store(&now)
}

// carry carries both flows until they have ended or the pair is cut.
func (c *pair) carry(ctx context.Context, p *Proxy) {
	var watch sync.WaitGroup
	defer watch.Wait()
	defer c.cut(nil)
	watch.Go(func() { c.watch(ctx, p) })
	watch.Go(func() {
		<-ctx.Done()
		c.close(context.Cause(ctx))
	})
	flows, within := errgroup.WithContext(ctx)
	for _, f := range []*flow{newFlow(c, p.up, c.near, c.far), newFlow(c, p.down, c.far, c.near)} {
		flows.Go(func() error { return f.read(within) })
		flows.Go(func() error { return f.write(within) })
	}
	watch.Go(func() {
		<-within.Done() // one of them failed, or all have ended
		c.cut(context.Cause(within))
	})
	_ = flows.Wait() // its error is the cause of the cut
}

// watch cuts the pair when it is idle for too long.
func (c *pair) watch(ctx context.Context, p *Proxy) {
	for {
		idle, changed := p.patience()
		timer := time.NewTimer(time.Until(c.heard.Load().Add(idle)))
		ring := timer.C
		if idle <= 0 {
			ring = nil
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-ring:
		}
		timer.Stop()
		switch {
		case ctx.Err() != nil:
			return
		case idle > 0 && time.Since(*c.heard.Load()) >= idle:
			c.cut(errIdle)
			return
		}
	}
}

// close closes both ends: in order when there is nothing to complain of, as at
// the end of a process, and else so that the other side's calls fail.
func (c *pair) close(why error) {
	orderly := errors.Is(why, context.Canceled) || errors.Is(why, errIdle)
	for _, conn := range []net.Conn{c.near, c.far} {
		if tcp, ok := conn.(interface{ SetLinger(int) error }); ok && !orderly {
			_ = tcp.SetLinger(0) // then it ends in order
		}
		_ = conn.Close() // whatever it says, it is gone
	}
}

// flow is one way of a pair.
type flow struct {
	pair     *pair
	lane     *lane
	src, dst net.Conn
	wire     chan parcel // closed when nothing more comes
	holed    bool        // for read alone: something has vanished
}

// parcel is some bytes on the wire.
type parcel struct {
	due  time.Time
	data []byte
	end  bool // no bytes: src has said all
}

func newFlow(c *pair, l *lane, src, dst net.Conn) *flow {
	return &flow{pair: c, lane: l, src: src, dst: dst, wire: make(chan parcel, window)}
}

// read takes what comes, and puts it on the wire.
func (f *flow) read(ctx context.Context) error {
	defer close(f.wire)
	for {
		buf := make([]byte, chunk)
		n, err := f.src.Read(buf)
		if n > 0 {
			if perr := f.put(ctx, parcel{data: buf[:n]}); perr != nil {
				return perr
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return f.put(ctx, parcel{end: true})
		case err != nil && (f.holed || f.lane.black()):
			return nil // it broke, and the other side does not hear of it
		case err != nil:
			return err
		}
	}
}

// put puts a parcel on the wire as soon as there is room, unless it vanishes.
func (f *flow) put(ctx context.Context, p parcel) (err error) {
	if f.holed {
		return nil
	}
	if p.due, f.holed, err = f.lane.admit(ctx, len(p.data)); err != nil || f.holed {
		return err
	}
	f.pair.hear()
	select {
	case f.wire <- p:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write lets what is on the wire out when it is due.
func (f *flow) write(ctx context.Context) error {
	for p := range f.wire {
		if err := pause(ctx, time.Until(p.due), nil); err != nil {
			return err
		}
		if p.end {
			return finish(f.dst)
		}
		if _, err := f.dst.Write(p.data); err != nil {
			return err
		}
	}
	return nil
}

// finish tells the other side that nothing more comes, if the connection can;
// else it is closed.
func finish(conn net.Conn) error {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return conn.Close()
}
