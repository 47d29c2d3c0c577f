package clusternet

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// What a connection is for, by the names that ALPN has for it.
const (
	protocolRaft = "schedd-raft/1"
	protocolGRPC = "h2"
)

// How connections begin.
const (
	// raftPreface is written first by who dials for Raft without TLS, and is the
	// answer to a connection for Raft that is taken, with TLS too.
	raftPreface = protocolRaft + "\n"
	// grpcPreface is what each client of HTTP/2 begins with.
	grpcPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	// tlsHandshake is the first byte of each connection that speaks TLS.
	tlsHandshake = 0x16
)

// Refusals, instead of an answer.
const (
	refusal      = "schedd: "
	refuseNoTLS  = refusal + "no TLS\n"    // it was TLS, and there is none here
	refuseTLS    = refusal + "needs TLS\n" // it was not, and there is nothing else here
	refuseFull   = refusal + "full\n"      // Raft does not take what waits for it
	refuseClosed = refusal + "stopping\n"

	// maxAnswer bounds the line that a dialler reads.
	maxAnswer = 128
)

// beginning is what the first bytes of a connection show.
type beginning int

const (
	beginsRaft beginning = iota + 1
	beginsGRPC
	beginsTLS
)

// errGarbage is the error of a connection that begins as none of ours does.
var errGarbage = errors.New("it speaks no protocol of this port")

// readBeginning reads as much of a connection as is needed to tell what it is,
// and never more; it returns what it has read. Of TLS it reads one byte, of the
// others their whole preface. The error is io.EOF only if there was nothing.
func readBeginning(r io.Reader) (b beginning, read []byte, err error) {
	read = make([]byte, 1, len(grpcPreface))
	if _, err := io.ReadFull(r, read); err != nil {
		return 0, nil, err
	}
	var want string
	switch read[0] {
	case tlsHandshake:
		return beginsTLS, read, nil
	case raftPreface[0]:
		b, want = beginsRaft, raftPreface
	case grpcPreface[0]:
		b, want = beginsGRPC, grpcPreface
	default:
		return 0, read, errGarbage
	}
	read = read[:len(want)]
	if n, err := io.ReadFull(r, read[1:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, read[:1+n], err
	}
	if string(read) != want {
		return 0, read, errGarbage
	}
	return b, read, nil
}

// readAnswer reads what the acceptor of a connection for Raft answers, and no
// byte behind it. It is nil for one that takes it.
func readAnswer(r io.Reader) error {
	line, err := readLine(r)
	if err != nil {
		return err
	}
	return checkAnswer(line)
}

func checkAnswer(line string) error {
	switch line {
	case raftPreface:
		return nil
	case refuseTLS:
		return errTheySpeakTLS
	case refuseNoTLS:
		return errTheyHaveNoTLS
	case refuseFull:
		return errFull
	case refuseClosed:
		return errStopping
	}
	return fmt.Errorf("it answers %q, as no primary does", line)
}

// readLine reads one line, with its end, byte by byte: what follows is not ours.
func readLine(r io.Reader) (string, error) {
	var line strings.Builder
	for one := make([]byte, 1); line.Len() < maxAnswer; {
		if _, err := io.ReadFull(r, one); err != nil {
			if errors.Is(err, io.EOF) && line.Len() > 0 {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
		line.WriteByte(one[0])
		if one[0] == '\n' {
			break
		}
	}
	return line.String(), nil
}

// replayed is a connection of which the beginning was read, and is read again.
type replayed struct {
	net.Conn
	again []byte
}

// Read implements [net.Conn]. There is one reader at a time.
func (c *replayed) Read(p []byte) (int, error) {
	if len(c.again) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.again)
	c.again = c.again[n:]
	return n, nil
}

// greeting is a connection to a gRPC server that has not said anything yet. What
// it says first may be that it does not take it: an alert of TLS, or a refusal.
type greeting struct {
	net.Conn
	explain func(error) error
	heard   bool
}

// Read implements [net.Conn]. There is one reader at a time.
func (c *greeting) Read(p []byte) (int, error) {
	if c.heard || len(p) == 0 {
		return c.Conn.Read(p)
	}
	n, err := c.Conn.Read(p[:1])
	if err == nil && n == 1 && p[0] == refusal[0] { // HTTP/2 begins with a frame shorter than that
		n, err = 0, c.refused()
	}
	c.heard = n > 0
	if err != nil {
		return n, c.explain(err)
	}
	return n, nil
}

// refused returns why the connection was refused, whose first byte has been read.
func (c *greeting) refused() error {
	line, err := readLine(c.Conn)
	if err != nil {
		return err
	}
	if err := checkAnswer(refusal[:1] + line); err != nil {
		return err
	}
	return errGarbage
}
