package clusternet

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

// Whatever somebody sends: what is read is a prefix of it, no longer than needed,
// and a protocol is found only behind all of its preface.
func FuzzReadBeginning(f *testing.F) {
	for _, seed := range []string{
		"", raftPreface, raftPreface + "more", grpcPreface, grpcPreface + "\x00", "\x16\x03\x01", "s", "P", "GET / HTTP/1.1\r\n",
		"schedd-raft/2\n", "PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		source := bytes.NewReader(sent)
		b, read, err := readBeginning(iotest.OneByteReader(source))
		if left := source.Len(); len(read) != len(sent)-left || !bytes.HasPrefix(sent, read) {
			t.Fatalf("of %q it has read %d and returns %q", sent, len(sent)-left, read)
		}
		want, preface := beginning(0), ""
		for k, p := range map[beginning]string{beginsRaft: raftPreface, beginsGRPC: grpcPreface, beginsTLS: "\x16"} {
			if strings.HasPrefix(string(sent), p) {
				want, preface = k, p
			}
		}
		if b != want || (err == nil) != (want != 0) {
			t.Fatalf("%q is taken for %d, %v; want %d", sent, b, err, want)
		}
		if err == nil && string(read) != preface {
			t.Fatalf("of %q it has read %q, want %q", sent, read, preface)
		}
		if errors.Is(err, io.EOF) != (len(sent) == 0) {
			t.Fatalf("%q ends with %v", sent, err)
		}
	})
}

// The answer to a dial is one line, and nothing behind it is touched.
func FuzzReadAnswer(f *testing.F) {
	for _, seed := range []string{"", raftPreface, raftPreface + "more", refuseFull, refuseTLS, "\n", strings.Repeat("x", 1000)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		source := bytes.NewReader(sent)
		err := readAnswer(source)
		if taken := bytes.HasPrefix(sent, []byte(raftPreface)); taken != (err == nil) {
			t.Fatalf("%q: %v", sent, err)
		}
		read := len(sent) - source.Len()
		if read > maxAnswer {
			t.Fatalf("it has read %d bytes", read)
		}
		if i := bytes.IndexByte(sent, '\n'); i >= 0 && read > i+1 {
			t.Fatalf("of %q it has read %d bytes, which is more than a line", sent, read)
		}
	})
}

// A connection whose beginning was read reads as if it had not been.
func TestReplay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sent := rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(t, "sent")
		n := rapid.IntRange(0, len(sent)).Draw(t, "read before")
		size := rapid.IntRange(1, 70).Draw(t, "read at once")
		c := &replayed{Conn: &readConn{r: bytes.NewReader(sent[n:])}, again: sent[:n]}
		var got []byte
		for buf := make([]byte, size); ; {
			k, err := c.Read(buf)
			got = append(got, buf[:k]...)
			if err != nil {
				break
			}
		}
		if !bytes.Equal(got, sent) {
			t.Fatalf("%q reads as %q", sent, got)
		}
	})
}

// readConn is a connection that can only be read.
type readConn struct {
	net.Conn
	r io.Reader
}

func (c *readConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func TestComplaintsAreBounded(t *testing.T) {
	var c complaints
	now := time.Unix(1e9, 0)
	var due int
	for i := range 3 * maxComplaints {
		if c.due(string(rune(i)), now) {
			due++
		}
	}
	if due != maxComplaints || len(c.last) != maxComplaints {
		t.Errorf("%d addresses are complained of and %d remembered, want %d", due, len(c.last), maxComplaints)
	}
	if !c.due("late", now.Add(complainEvery)) {
		t.Error("a minute later there is still no room")
	}
	if len(c.last) != 1 {
		t.Errorf("%d addresses are remembered, want 1", len(c.last))
	}
}
