package server

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// Config is all that a primary is told by its operator. Start from
// [DefaultConfig].
type Config struct {
	// NodeID is this primary's name in the cluster; it stays the same for the
	// life of its data. Default: the host's name.
	NodeID string
	// DataDir holds the Raft log, snapshots and run logs. Only one primary may
	// use it at a time. Default /var/lib/schedd.
	DataDir string
	// APIAddr is where the API and the workers are served. Default
	// 127.0.0.1:7421.
	APIAddr string
	// WebAddr is where metrics and health are served. Default 127.0.0.1:7480.
	WebAddr string
	// Insecure allows addresses that others can reach, without encryption and
	// authentication. Default false.
	Insecure bool

	// What a group of several primaries needs.
	Cluster Cluster
}

// Cluster is how this primary forms a group with others. This version runs
// alone; [Config.Validate] refuses anything else.
type Cluster struct {
	// Addr is where other primaries are listened to. Default 127.0.0.1:7420.
	Addr string
	// Advertise is what other primaries dial; "": Addr.
	Advertise string
	// BootstrapExpect is how many primaries form the first group. Default 1.
	BootstrapExpect int
	// Join lists cluster addresses of other primaries, separated by commas.
	Join string
	// Key is the file of the cluster's key.
	Key string
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	host, err := os.Hostname()
	if err != nil {
		host = "primary"
	}
	return Config{
		NodeID:  host,
		DataDir: "/var/lib/schedd",
		APIAddr: "127.0.0.1:7421",
		WebAddr: "127.0.0.1:7480",
		Cluster: Cluster{Addr: "127.0.0.1:7420", BootstrapExpect: 1},
	}
}

var nodeID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$`)

// Validate returns all that is wrong, joined.
func (c *Config) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if !nodeID.MatchString(c.NodeID) {
		wrong("--node-id: %q is no name for a primary; use up to 253 letters, digits, dots, dashes and underscores", c.NodeID)
	}
	if c.DataDir == "" {
		wrong("--data-dir: give a directory")
	}
	for _, a := range []struct{ flag, addr string }{{"--api-addr", c.APIAddr}, {"--web-addr", c.WebAddr}, {"--cluster-addr", c.Cluster.Addr}} {
		local, err := loopback(a.addr)
		switch {
		case err != nil:
			wrong("%s: %w; give it as host:port", a.flag, err)
		case !local && !c.Insecure:
			wrong("%s: %s can be reached by others, and this version has no TLS yet: use an address such as 127.0.0.1, or accept the risk with --insecure", a.flag, a.addr)
		}
	}
	if n := c.Cluster.BootstrapExpect; n != 1 {
		wrong("--bootstrap-expect: %d primaries are not available yet; leave it at 1", n)
	}
	if c.Cluster.Join != "" {
		wrong("--join: groups of several primaries are not available yet; leave it out")
	}
	if c.Cluster.Key != "" {
		wrong("--cluster-key: TLS between primaries is not available yet; leave it out")
	}
	return errors.Join(errs...)
}

// loopback reports whether an address can be reached from this host only.
func loopback(addr string) (bool, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false, fmt.Errorf("%q is no address: %s", addr, strings.TrimPrefix(err.Error(), "address "))
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return false, fmt.Errorf("%q has no valid port", addr)
	}
	if host == "localhost" {
		return true, nil
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback(), nil
}
