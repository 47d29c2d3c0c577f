package agent

import (
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"os"
	"runtime"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/settings"
)

// newHello returns what the worker says of itself in every session of this life.
func newHello(c Config, boot string) *agentv1.Hello {
	h := &agentv1.Hello{
		Instance:          rand.Text(),
		BootId:            boot,
		Name:              c.Name,
		Labels:            c.Labels,
		Slots:             uint32(c.Slots),
		AdvertiseHostname: c.AdvertiseHostname,
		AdvertiseIp:       c.AdvertiseIP,
		Version:           settings.Version(),
		Os:                runtime.GOOS,
		Arch:              runtime.GOARCH,
	}
	if h.AdvertiseHostname == "" {
		if host, err := os.Hostname(); err == nil && plain(host) {
			h.AdvertiseHostname = host // else none: it is for people only
		}
	}
	if h.AdvertiseIp == "" {
		h.AdvertiseIp = someAddress()
	}
	return h
}

// someAddress returns an address of this host that others might know it by, or
// nothing. IPv4 is what people recognise.
func someAddress() string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	var found string
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || !n.IP.IsGlobalUnicast() {
			continue
		}
		if n.IP.To4() != nil {
			return n.IP.String()
		}
		if found == "" {
			found = n.IP.String()
		}
	}
	return found
}

func (h *home) public() ed25519.PublicKey { return h.key.Public().(ed25519.PublicKey) }
