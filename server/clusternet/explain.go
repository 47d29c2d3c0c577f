package clusternet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// What keeps two primaries apart, for the people who run them. They are said of
// the other one: "10.0.0.2:7420: it uses another cluster key".
var (
	errOtherKey      = errors.New("it uses another cluster key: give all primaries the same --cluster-key")
	errRefusedUs     = errors.New("it refuses this primary's certificate: it uses another cluster key, or its clock is wrong; its own log says more")
	errClock         = errors.New("its certificate is of another time: compare its clock with this one's")
	errTheySpeakTLS  = errors.New("it speaks TLS, and this primary has no --cluster-key: give all primaries the same")
	errTheyHaveNoTLS = errors.New("it has no --cluster-key and speaks no TLS, and this primary has one: give all primaries the same")
	errFull          = errors.New("too many connections wait there for Raft already")
	errStopping      = errors.New("it is stopping")
	errFullHere      = fmt.Errorf("%d connections wait here already, and Raft takes none", maxWaiting)
	errStoppingHere  = errors.New("this primary is stopping")
	errSlow          = errors.New("the handshake took too long")
	errCrowd         = fmt.Errorf("%d others began a handshake before it had ended its own", maxHandshakes)
)

// explain says why a handshake failed, in words for people, where it can tell.
func explain(err error) error {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return errOtherKey
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
		return fmt.Errorf("%w (%w)", errClock, e)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return errTheyHaveNoTLS
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" { // an alert
		return fmt.Errorf("%w (%w)", errRefusedUs, e.Err)
	}
	if timedOut(err) {
		return errSlow
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("it ended the connection in the handshake (%v)", err) //nolint:errorlint // as io.EOF it would be taken for a connection without a word
	}
	return err
}

func timedOut(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout() || errors.Is(err, context.DeadlineExceeded)
}

const (
	// complainEvery is how often the same address is complained of.
	complainEvery = time.Minute
	// maxComplaints bounds how many addresses are remembered. Of more of them at a
	// time nothing is said.
	maxComplaints = 1024
)

// complaints remembers when which address was complained of, so that one that
// comes back each second fills no log. The zero value remembers nothing.
type complaints struct {
	mu   sync.Mutex // guards what follows
	last map[string]time.Time
}

// due reports whether to complain of the address now, and takes it as done.
func (c *complaints) due(address string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.last[address]; ok && now.Sub(t) < complainEvery {
		return false
	}
	if len(c.last) >= maxComplaints {
		for a, t := range c.last {
			if now.Sub(t) >= complainEvery {
				delete(c.last, a)
			}
		}
	}
	if len(c.last) >= maxComplaints {
		return false
	}
	if c.last == nil {
		c.last = map[string]time.Time{}
	}
	c.last[address] = now
	return true
}
