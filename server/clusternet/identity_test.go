package clusternet

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
	"pgregory.net/rapid"
)

var testKey = bytes.Repeat([]byte{7}, keySize)

func identityOf(t rapid.TB, key []byte, node string) *identity {
	t.Helper()
	i, err := newIdentity(key, node)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// Primaries never send each other the authority's certificate, so it has to come
// out the same in all of them, whatever their version.
func TestAuthorityIsTheSameEverywhere(t *testing.T) {
	a, b := identityOf(t, testKey, "a"), identityOf(t, testKey, "b")
	if !a.authority.Equal(b.authority) {
		t.Error("two primaries with one key have two authorities")
	}
	const known = "b66bba1e59cf33f24ba358316f79c1043bc01dcf9754f11c60b16f4050379dee"
	if got := hex.EncodeToString(a.authority.PublicKey.(ed25519.PublicKey)); got != known {
		t.Errorf("the key of the authority is %s, and was %s: primaries of two versions can't meet", got, known)
	}
	if bytes.Contains(a.authority.Raw, testKey) {
		t.Error("the certificate of the authority contains the key")
	}
	other := identityOf(t, bytes.Repeat([]byte{8}, keySize), "a")
	if a.authority.Equal(other.authority) {
		t.Error("two keys have one authority")
	}
}

// However the clock goes, what a primary shows is good: now, for one whose clock
// is an hour behind, and for one that is hours ahead.
func TestCertificatesAreGoodWhateverTheClockDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := identityOf(t, testKey, "a")
		now := time.Date(2026, 3, 29, 2, 30, 0, 0, time.UTC)
		for range rapid.IntRange(1, 6).Draw(t, "handshakes") {
			now = now.Add(time.Duration(rapid.Int64Range(int64(-10*time.Hour), int64(30*time.Hour)).Draw(t, "passes")))
			c, err := i.certificate(now)
			if err != nil {
				t.Fatal(err)
			}
			behind, ahead := now, now.Add(leafLife-leafRenew-time.Second)
			for _, at := range []time.Time{behind, now, ahead} {
				_, err := c.Leaf.Verify(x509.VerifyOptions{
					DNSName: serverName, Roots: i.roots, CurrentTime: at,
					KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
				})
				if err != nil {
					t.Fatalf("at %v, by a clock that says %v: %v", now, at, err)
				}
			}
		}
	})
}

func TestCertificatesAreKeptForTwoThirds(t *testing.T) {
	i, now := identityOf(t, testKey, "a"), time.Date(2026, 3, 29, 2, 30, 0, 0, time.UTC)
	first, err := i.certificate(now)
	if err != nil {
		t.Fatal(err)
	}
	if at := first.Leaf.NotBefore; !at.Equal(now.Add(-time.Hour)) {
		t.Errorf("it begins at %v", at)
	}
	if at := first.Leaf.NotAfter; !at.Equal(now.Add(24 * time.Hour)) {
		t.Errorf("it ends at %v", at)
	}
	for _, test := range []struct {
		after time.Duration
		same  bool
	}{{16*time.Hour - time.Second, true}, {-time.Hour, true}, {16 * time.Hour, false}} {
		c, err := i.certificate(now.Add(test.after))
		if err != nil {
			t.Fatal(err)
		}
		if (c == first) != test.same {
			t.Errorf("after %v it is the same: %v, want %v", test.after, c == first, test.same)
		}
	}
}

// Any id comes back from a certificate as it is.
func TestIDsInCertificates(t *testing.T) {
	i := identityOf(t, testKey, "a")
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.StringN(1, 80, -1).Draw(t, "id")
		c, err := i.issue(primaryURI(id), time.Unix(1e9, 0))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := primaryOf(c.Leaf); err != nil || got != id {
			t.Errorf("%q comes back as %q, %v", id, got, err)
		}
	})
}

// roles are what other certificates of the same authority may say one day.
var roles = []string{
	"spiffe://schedd/agent/a",
	"spiffe://schedd/primary/",
	"spiffe://schedd/primary",
	"spiffe://schedd/Primary/a",
	"spiffe://schedd/agent/primary/a",
	"spiffe://other/primary/a",
	"spiffe://schedd:1/primary/a",
	"spiffe://user@schedd/primary/a",
	"spiffe://schedd/primary/a?role=agent",
	"spiffe://schedd/primary/a#agent",
	"https://schedd/primary/a",
	"urn:schedd:primary:a",
}

func TestOnlyPrimariesArePrimaries(t *testing.T) {
	for _, role := range roles {
		if id, err := primaryOf(&x509.Certificate{URIs: []*url.URL{parseURL(t, role)}}); err == nil {
			t.Errorf("%s is taken for the primary %q", role, id)
		}
	}
	a := primaryURI("a")
	for _, c := range []*x509.Certificate{{}, {URIs: []*url.URL{a, a}}} {
		if id, err := primaryOf(c); err == nil {
			t.Errorf("a certificate with %d URIs is taken for the primary %q", len(c.URIs), id)
		}
	}
}

func parseURL(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// odd is a way to get a handshake wrong: it changes how TLS is spoken by somebody
// who has the key of the authority.
type odd struct {
	name  string
	spoil func(t *testing.T, i *identity, c *tls.Config)
	says  string // of it, by the other end
}

func odds() []odd {
	as := func(role string) func(*testing.T, *identity, *tls.Config) {
		return func(t *testing.T, i *identity, c *tls.Config) {
			show(c, func() (*tls.Certificate, error) { return i.issue(parseURL(t, role), time.Now()) })
		}
	}
	list := []odd{
		{"a certificate of yesterday", func(_ *testing.T, i *identity, c *tls.Config) {
			show(c, func() (*tls.Certificate, error) {
				return i.issue(primaryURI("a"), time.Now().Add(-leafLife-time.Minute))
			})
		}, "its certificate is of another time"},
		{"a certificate of tomorrow", func(_ *testing.T, i *identity, c *tls.Config) {
			show(c, func() (*tls.Certificate, error) {
				return i.issue(primaryURI("a"), time.Now().Add(leafBackdate+time.Minute))
			})
		}, "its certificate is of another time"},
		{"another authority", func(t *testing.T, _ *identity, c *tls.Config) {
			other := identityOf(t, bytes.Repeat([]byte{8}, keySize), "a")
			show(c, func() (*tls.Certificate, error) { return other.certificate(time.Now()) })
		}, "it uses another cluster key"},
	}
	for _, role := range roles {
		list = append(list, odd{role, as(role), "its certificate is not that of a primary"})
	}
	return list
}

func show(c *tls.Config, f func() (*tls.Certificate, error)) {
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f() }
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return f() }
}

// lone is a network with a gRPC server that serves nothing, in a bubble.
type lone struct {
	*Network
	port *bufconn.Listener
	log  *bytes.Buffer
}

func startLone(t *testing.T, dials *bufconn.Listener) *lone {
	l := &lone{port: bufconn.Listen(64 << 10), log: &bytes.Buffer{}}
	var err error
	l.Network, err = Open(Config{
		NodeID: "lone", Listener: l.port, Advertise: "lone", Key: testKey,
		Dial: func(ctx context.Context, _ string) (net.Conn, error) { return dials.DialContext(ctx) },
		Log:  slog.New(slog.NewTextHandler(l.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(l.ServerOptions()...)
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve(l.Listener())
	}()
	t.Cleanup(func() {
		server.Stop()
		<-served
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// Who dials must be a primary, with the key and the time right, or is refused
// before a byte of its is heeded.
func TestAcceptorRefuses(t *testing.T) {
	list := append(odds(),
		odd{"no certificate", func(_ *testing.T, _ *identity, c *tls.Config) {
			show(c, func() (*tls.Certificate, error) { return &tls.Certificate{}, nil })
		}, "client didn't provide a certificate"},
		odd{"no protocol", func(_ *testing.T, _ *identity, c *tls.Config) { c.NextProtos = nil }, "it does not say what the connection is for"},
		odd{"another protocol", func(_ *testing.T, _ *identity, c *tls.Config) { c.NextProtos = []string{"schedd-raft/9"} }, "schedd-raft/9"},
		odd{"TLS 1.2", func(_ *testing.T, _ *identity, c *tls.Config) {
			c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		}, "unsupported versions"},
	)
	for _, protocol := range []string{protocolRaft, protocolGRPC} {
		for _, odd := range list {
			t.Run(protocol+"/"+odd.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := startLone(t, nil)
					i := identityOf(t, testKey, "a")
					c := i.config(protocol)
					c.VerifyConnection = nil
					odd.spoil(t, i, c)
					raw, err := l.port.Dial()
					if err != nil {
						t.Fatal(err)
					}
					defer raw.Close()
					conn := tls.Client(raw, c)
					err = conn.Handshake()
					if err == nil { // in TLS 1.3 the client is not waited for
						_, err = conn.Read(make([]byte, 1))
					}
					if e, ok := errors.AsType[*net.OpError](err); !ok || e.Op != "remote error" {
						t.Errorf("who dials gets %v, want an alert", err)
					}
					raw.Close()
					synctest.Wait()
					if !strings.Contains(l.log.String(), odd.says) {
						t.Errorf("the log has %q, want in it %q", l.log, odd.says)
					}
					if n := len(l.streams.waiting); n != 0 {
						t.Errorf("%d connections wait for Raft", n)
					}
				})
			})
		}
	}
}

// Who is dialled must be a primary too.
func TestDiallerRefuses(t *testing.T) {
	for _, odd := range odds() {
		t.Run(odd.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				port := bufconn.Listen(64 << 10)
				l := startLone(t, port)
				i := identityOf(t, testKey, "a")
				c := i.config(protocolRaft, protocolGRPC)
				odd.spoil(t, i, c)
				go func() {
					for range 2 {
						raw, err := port.Accept()
						if err != nil {
							return
						}
						conn := tls.Server(raw, c)
						if conn.Handshake() == nil {
							io.WriteString(conn, raftPreface)
						}
						conn.Close()
					}
				}()
				_, err := l.Streams().Dial("odd", time.Minute)
				if err == nil || !strings.Contains(err.Error(), odd.says) {
					t.Errorf("Raft gets %v, want in it %q", err, odd.says)
				}
				conn, err := l.Conn("odd")
				if err != nil {
					t.Fatal(err)
				}
				err = conn.Invoke(t.Context(), "/any/thing", nil, nil)
				if err == nil || !strings.Contains(err.Error(), odd.says) {
					t.Errorf("gRPC gets %v, want in it %q", err, odd.says)
				}
				port.Close()
			})
		})
	}
}

// A dialler that the acceptor refuses learns it, although its own handshake was
// fine.
func TestRefusedDiallerIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		port := bufconn.Listen(64 << 10)
		l := startLone(t, port)
		c := identityOf(t, testKey, "a").config(protocolRaft, protocolGRPC)
		c.ClientCAs = x509.NewCertPool()
		go func() {
			for range 2 {
				raw, err := port.Accept()
				if err != nil {
					return
				}
				tls.Server(raw, c).Handshake()
				drain(raw)
				raw.Close()
			}
		}()
		const want = "odd: it refuses this primary's certificate"
		_, err := l.Streams().Dial("odd", time.Minute)
		if err == nil || !strings.Contains(err.Error(), "it refuses this primary's certificate") {
			t.Errorf("Raft gets %v, want in it %q", err, want)
		}
		conn, err := l.Conn("odd")
		if err != nil {
			t.Fatal(err)
		}
		err = conn.Invoke(t.Context(), "/any/thing", nil, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("gRPC gets %v, want in it %q", err, want)
		}
		port.Close()
	})
}

// No session is resumed: a certificate is shown each time.
func TestEachConnectionShowsItsCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := startLone(t, nil)
		c := identityOf(t, testKey, "a").config(protocolRaft)
		c.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		for range 2 {
			raw, err := l.port.Dial()
			if err != nil {
				t.Fatal(err)
			}
			conn := tls.Client(raw, c)
			if err := readAnswer(conn); err != nil {
				t.Fatal(err)
			}
			if conn.ConnectionState().DidResume {
				t.Error("a session was resumed")
			}
			conn.Close()
		}
	})
}
