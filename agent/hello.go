package agent

import (
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"os"
	"runtime"
	"strings"
	"unicode"

	"github.com/schedd/schedd/agent/runner"
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

// enforcement is what the runner can hold attempts to, as the gateway is told. It may
// be another one in each session: so may the runner.
func enforcement(e runner.Enforcement) *agentv1.Enforcement {
	means := func(m runner.Means) agentv1.Means {
		return map[runner.Means]agentv1.Means{
			runner.MeansNone: agentv1.Means_MEANS_NONE, runner.MeansProc: agentv1.Means_MEANS_PROC, runner.MeansCgroupV2: agentv1.Means_MEANS_CGROUP_V2,
		}[m]
	}
	const most = 512 // bytes that a gateway takes
	note := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(e.Note[:min(len(e.Note), most)], ""))
	return &agentv1.Enforcement{
		Memory: means(e.Memory), Cpu: means(e.CPU), Pids: means(e.PIDs), Usage: means(e.Usage), Tree: means(e.Tree), Note: note,
	}
}

func (h *home) public() ed25519.PublicKey { return h.key.Public().(ed25519.PublicKey) }
