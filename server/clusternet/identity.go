package clusternet

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	// authorityInfo is what the key of the authority is derived for. The cluster's
	// key may be used for something else one day: that needs an info of its own.
	// Another version of this one would be another authority.
	authorityInfo = "schedd cluster authority ed25519 v1"
	// serverName is what all primaries are called in certificates: which host one
	// runs on, and under what name it is dialled, must not matter.
	serverName = "primary.schedd.internal"

	// What a certificate says that its owner is: a URI of this scheme and host,
	// whose path is the role and the id.
	trustScheme = "spiffe"
	trustHost   = "schedd"
	primaryPath = "/primary/"
)

const (
	// leafLife is how long a certificate is good for.
	leafLife = 24 * time.Hour
	// leafRenew is the age at which it gets a successor, so that a clock that is
	// hours ahead takes it still.
	leafRenew = leafLife * 2 / 3
	// leafBackdate is how far another primary's clock may be behind.
	leafBackdate = time.Hour
)

// errRole is the error of a certificate of ours that is not a primary's.
var errRole = errors.New("its certificate is not that of a primary")

// identity is what this primary proves who it is with, and what it holds the
// others to.
type identity struct {
	node      string
	authority *x509.Certificate
	key       ed25519.PrivateKey // of the authority
	roots     *x509.CertPool     // nothing but the authority

	mu    sync.Mutex // guards what follows
	leaf  *tls.Certificate
	renew time.Time
}

// newIdentity returns the identity of a primary that has the cluster's key.
func newIdentity(key []byte, node string) (*identity, error) {
	seed, err := hkdf.Key(sha256.New, key, nil, authorityInfo, ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("derive the authority's key: %w", err)
	}
	i := &identity{node: node, key: ed25519.NewKeyFromSeed(seed), roots: x509.NewCertPool()}
	// Nothing in it differs between primaries, and it never ends: it is worth what
	// the key is worth.
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "schedd cluster"},
		NotBefore:             time.Unix(0, 0),
		NotAfter:              time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		IsCA:                  true,
		MaxPathLenZero:        true, // it issues to primaries only
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	if i.authority, err = sign(template, template, i.key.Public(), i.key); err != nil {
		return nil, fmt.Errorf("make the authority's certificate: %w", err)
	}
	i.roots.AddCert(i.authority)
	return i, nil
}

// certificate returns the one to show at that time. It is made anew when the one
// before is due, and when the clock was set back behind its beginning.
func (i *identity) certificate(now time.Time) (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.leaf != nil && now.Before(i.renew) && !now.Before(i.leaf.Leaf.NotBefore) {
		return i.leaf, nil
	}
	leaf, err := i.issue(primaryURI(i.node), now)
	if err != nil {
		return nil, err
	}
	i.leaf, i.renew = leaf, now.Add(leafRenew)
	return leaf, nil
}

// issue makes a certificate, with a key of its own, for who is what the URI says.
func (i *identity) issue(who *url.URL, now time.Time) (*tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("draw the key of a certificate: %w", err)
	}
	leaf, err := sign(&x509.Certificate{
		Subject:               pkix.Name{CommonName: "schedd primary"},
		NotBefore:             now.Add(-leafBackdate),
		NotAfter:              now.Add(leafLife),
		DNSNames:              []string{serverName},
		URIs:                  []*url.URL{who},
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, i.authority, public, i.key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: private, Leaf: leaf}, nil
}

func sign(template, parent *x509.Certificate, public any, key ed25519.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// primaryURI is how a certificate says that its owner is that primary.
func primaryURI(id string) *url.URL {
	return &url.URL{Scheme: trustScheme, Host: trustHost, Path: primaryPath + id}
}

// primaryOf returns the id of the primary whose certificate this is, or errRole.
// That the authority made it has been checked before.
func primaryOf(c *x509.Certificate) (string, error) {
	if len(c.URIs) != 1 {
		return "", errRole
	}
	u := c.URIs[0]
	id, ok := strings.CutPrefix(u.Path, primaryPath)
	if !ok || id == "" || *u != (url.URL{Scheme: trustScheme, Host: trustHost, Path: u.Path, RawPath: u.RawPath}) {
		return "", errRole
	}
	return id, nil
}

// tlsConfigs are how TLS is spoken here, by what a connection is for.
type tlsConfigs struct{ accept, dialRaft, dialGRPC *tls.Config }

func newTLSConfigs(i *identity) *tlsConfigs {
	return &tlsConfigs{
		accept:   i.config(protocolRaft, protocolGRPC),
		dialRaft: i.config(protocolRaft),
		dialGRPC: i.config(protocolGRPC),
	}
}

// config returns how TLS is spoken for these protocols. It serves both ends.
func (i *identity) config(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protocols,
		ServerName: serverName,
		RootCAs:    i.roots,
		ClientCAs:  i.roots,
		ClientAuth: tls.RequireAndVerifyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return i.certificate(time.Now())
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return i.certificate(time.Now())
		},
		// One that is resumed would outlive the certificate that it began with.
		SessionTicketsDisabled: true,
		VerifyConnection:       checkPeer,
	}
}

// checkPeer holds the other end to being a primary, and to say what the
// connection is for: one that offers no protocol is let through by crypto/tls.
func checkPeer(s tls.ConnectionState) error {
	if s.NegotiatedProtocol == "" {
		return errors.New("it does not say what the connection is for")
	}
	if len(s.VerifiedChains) == 0 {
		return errRole
	}
	_, err := primaryOf(s.PeerCertificates[0])
	return err
}
