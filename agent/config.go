package agent

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/validate/content"
)

// Limits of what a worker may say of itself. A gateway refuses a worker that says
// more, so the operator is told at the start.
const (
	maxSlots  = 10_000
	maxName   = 253 // bytes, as of a host's name
	maxLabels = 64
)

// slotsPerCPU: most jobs wait for something else most of the time.
const slotsPerCPU = 4

// Config is all that a worker is told by its operator. Start from
// [DefaultConfig].
type Config struct {
	// Server is where the gateways are: the load balancer, or a list of
	// primaries separated by commas, host:port each. A worker that listens may
	// do without. Default 127.0.0.1:7421.
	Server string
	// DirectListen is where the worker listens for primaries that dial it,
	// host:port; for hosts that can be reached and can't dial out. Default: it
	// listens nowhere.
	DirectListen string
	// DataDir holds the identity, the journal and the spool. Only one agent may
	// use it at a time. It is made if it is not there. Default
	// /var/lib/schedagent.
	DataDir string
	// Name is what people see. Default: the host's name.
	Name string
	// Labels are what jobs select workers by. Default: none.
	Labels map[string]string
	// Policy is the name of a file that says what may be started on this host;
	// see package policy. It is for a runner that the agent starts, or that is
	// in its process. Default: anything may be.
	Policy string
	// Cgroup says where attempts get control groups (cgroup v2): [CgroupAuto],
	// [CgroupNone], or a directory of that file system. It is for a runner that the
	// agent starts, or that is in its process. Default: auto.
	Cgroup string
	// RunnerDir is the data directory of a runner that somebody else starts, as another
	// user; see [RunnerConfig.AgentUser]. Default: the runner is in DataDir.
	RunnerDir string
	// InProcess has jobs' processes be the agent's own children, which end when
	// it stops: for containers, in which nothing outlives process 1. Default:
	// whether this is process 1.
	InProcess bool
	// StartRunner has the agent start its runner when there is none. Without it
	// somebody else has to, as systemd does. Default true.
	StartRunner bool
	// Slots is how many attempts run at the same time. Default: 4 for each CPU.
	Slots int
	// AdvertiseHostname and AdvertiseIP are shown to people. Nobody dials them,
	// but for a worker that listens. Default: detected.
	AdvertiseHostname, AdvertiseIP string
	// Insecure allows to talk to a gateway on another host without encryption
	// and authentication of the gateway, and to listen for such. Default false.
	Insecure bool
}

// DefaultConfig returns the defaults, with what is known of this host. It asks
// nobody else.
func DefaultConfig() Config {
	host, err := os.Hostname()
	if err != nil {
		host = "" // Validate asks for a name then
	}
	return Config{
		Server:  "127.0.0.1:7421",
		DataDir: "/var/lib/schedagent",
		Name:    host,
		Slots:   slotsPerCPU * runtime.NumCPU(),

		Cgroup:      CgroupAuto,
		InProcess:   os.Getpid() == 1,
		StartRunner: true,
	}
}

// Validate returns all that is wrong, each fault with what to do, joined.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	faults = append(faults, c.checkServers()...)
	faults = append(faults, c.checkDirect()...)
	if err := checkDataDir(c.DataDir); err != nil {
		faults = append(faults, err)
	}
	if c.Name == "" || !plain(c.Name) {
		fault("name: %.60q has to be 1 to %d printable characters", c.Name, maxName)
	}
	if c.Slots < 1 || c.Slots > maxSlots {
		fault("slots: %d is not between 1 and %d", c.Slots, maxSlots)
	}
	faults = append(faults, checkLabels(c.Labels)...)
	switch {
	case c.Policy != "" && !filepath.IsAbs(c.Policy):
		fault("policy: %q is not absolute; write it from / on", c.Policy)
	case c.Policy != "" && !c.StartRunner && !c.InProcess:
		fault("policy: is for a runner that the agent starts, and it is to start none; give it to schedagent runner")
	}
	switch {
	case c.RunnerDir != "" && !filepath.IsAbs(c.RunnerDir):
		fault("runner-dir: %q is not absolute; write it from / on", c.RunnerDir)
	case c.RunnerDir != "" && (c.StartRunner || c.InProcess):
		fault("runner-dir: is for a runner that somebody else starts: give --start-runner=false, and not --in-process")
	}
	if err := checkCgroup(c.Cgroup); err != nil {
		faults = append(faults, err)
	}
	if !plain(c.AdvertiseHostname) {
		fault("advertise-hostname: %.60q has to be at most %d printable characters", c.AdvertiseHostname, maxName)
	}
	if c.AdvertiseIP != "" {
		if _, err := netip.ParseAddr(c.AdvertiseIP); err != nil {
			fault("advertise-ip: %.60q is not an IP address", c.AdvertiseIP)
		}
	}
	return errors.Join(faults...)
}

func checkDataDir(dir string) error {
	switch {
	case dir == "":
		return errors.New("data-dir: is empty; name a directory that outlives restarts")
	case !filepath.IsAbs(dir):
		return fmt.Errorf("data-dir: %q is not absolute; write it from / on", dir)
	}
	return nil
}

func (c Config) checkServers() (faults []error) {
	servers := c.servers()
	if len(servers) == 0 && (c.Server != "" || c.DirectListen == "") {
		return []error{errors.New("server: is empty; name the load balancer or the primaries as host:port")}
	}
	for _, s := range servers {
		host, port, err := net.SplitHostPort(s)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || perr != nil || n == 0 {
			faults = append(faults, fmt.Errorf("server: %q is not host:port, such as schedd.example.com:7421", s))
			continue
		}
		if !c.Insecure && !loopback(host) {
			faults = append(faults, fmt.Errorf("server: %s is another host, and there is no TLS yet: "+
				"reach it through a tunnel (WireGuard, ssh) that ends on 127.0.0.1, or, on a network that you trust, give --insecure", s))
		}
	}
	return faults
}

// checkDirect finds what is wrong with the address to listen on. Until there is
// TLS, by which primary and worker prove themselves to each other, whoever can
// reach that address can be this worker's primary and run programs here. So the
// worker has to be told that this is wanted, as for all other addresses.
func (c Config) checkDirect() []error {
	if c.DirectListen == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(c.DirectListen)
	if _, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil {
		return []error{fmt.Errorf("direct-listen: %q is not host:port, such as 10.0.0.7:7422 or :7422", c.DirectListen)}
	}
	if !c.Insecure && !loopback(host) {
		return []error{fmt.Errorf("direct-listen: %s can be reached from other hosts, and there is no TLS yet: whoever dials it could run programs here. "+
			"Listen on 127.0.0.1, behind a tunnel (WireGuard, ssh), or, on a network that you trust, give --insecure", c.DirectListen)}
	}
	return nil
}

// servers returns the items of Server.
func (c Config) servers() []string {
	var list []string
	for s := range strings.SplitSeq(c.Server, ",") {
		if s = strings.TrimSpace(s); s != "" {
			list = append(list, s)
		}
	}
	return list
}

// loopback reports whether a host is this one, without asking a name server,
// whose answer may change.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// plain reports whether a name can be sent, and shown to people.
func plain(name string) bool {
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
	return len(name) <= maxName && utf8.ValidString(name) && !strings.ContainsFunc(name, unprintable)
}

// ParseLabels reads labels as they are written on a command line: key=value or
// key alone, separated by commas. Whether they make sense, [Config.Validate]
// says.
func ParseLabels(text string) (map[string]string, error) {
	labels := make(map[string]string)
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		key, value, _ := strings.Cut(item, "=")
		if _, again := labels[key]; again {
			return nil, fmt.Errorf("label %q is given twice", key)
		}
		labels[key] = value
	}
	return labels, nil
}

// FormatLabels is the reverse of [ParseLabels], sorted by key.
func FormatLabels(labels map[string]string) string {
	var items []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if value := labels[key]; value != "" {
			key += "=" + value
		}
		items = append(items, key)
	}
	return strings.Join(items, ",")
}

// checkLabels returns what is wrong with labels, whose syntax is that of
// Kubernetes, as it is of the selectors that name them.
func checkLabels(labels map[string]string) (faults []error) {
	if len(labels) > maxLabels {
		faults = append(faults, fmt.Errorf("labels: there are %d, the most is %d", len(labels), maxLabels))
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		for _, why := range content.IsLabelKey(key) {
			faults = append(faults, fmt.Errorf("labels: the key %.80q: %s", key, why))
		}
		for _, why := range content.IsLabelValue(labels[key]) {
			faults = append(faults, fmt.Errorf("labels: the value %.80q of %.80q: %s", labels[key], key, why))
		}
	}
	return faults
}
