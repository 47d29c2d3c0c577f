package server

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/schedd/schedd/server/history"
	"github.com/schedd/schedd/server/plan"
)

// Config is all that a primary is told by its operator. Start from
// [DefaultConfig].
type Config struct {
	// NodeID is this primary's name in the cluster; it stays the same for the
	// life of its data. Default: the host's name.
	NodeID string
	// DataDir holds the Raft log, snapshots, history and run logs. Only one primary may
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

	// Active bounds the runs that have not ended: the leader's counts. Default
	// [plan.DefaultBounds].
	Active plan.Bounds
	// Hot bounds the runs that ended and are still in memory, on all primaries: the
	// leader's counts. Default [plan.DefaultRetention].
	Hot plan.Retention
	// History bounds those that this primary keeps on disk, with their output.
	// Default [history.DefaultRetention].
	History history.Retention

	// What a group of several primaries needs.
	Cluster Cluster
}

// Cluster is how this primary forms a group with others, or joins one.
type Cluster struct {
	// Addr is where other primaries are listened to. Default 127.0.0.1:7420; ""
	// listens to none, and the primary stays alone.
	Addr string
	// Advertise is what other primaries dial; "": Addr.
	Advertise string
	// BootstrapExpect is how many primaries form the first group. Default 1,
	// which with others in Join means to join their group.
	BootstrapExpect int
	// Join lists cluster addresses of other primaries, separated by commas. This
	// one's own may be among them, so that all can be given the same list.
	Join string
	// Key is the file of the cluster's key. With it, primaries prove who they are
	// and encrypt what they say to each other.
	Key string
}

// advertised returns what other primaries dial.
func (c Cluster) advertised() string { return cmp.Or(c.Advertise, c.Addr) }

// others returns the items of Join without this primary's own address.
func (c Cluster) others() []string {
	var list []string
	for a := range strings.SplitSeq(c.Join, ",") {
		if a = strings.TrimSpace(a); a != "" && a != c.advertised() {
			list = append(list, a)
		}
	}
	return list
}

// alone tells whether this primary forms a group by itself when it has no data.
func (c Cluster) alone() bool { return c.BootstrapExpect == 1 && len(c.others()) == 0 }

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
		Active:  plan.DefaultBounds,
		Hot:     plan.DefaultRetention,
		History: history.DefaultRetention,
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
	for _, a := range []struct{ flag, addr string }{{"--api-addr", c.APIAddr}, {"--web-addr", c.WebAddr}} {
		local, err := loopback(a.addr)
		switch {
		case err != nil:
			wrong("%s: %w; give it as host:port", a.flag, err)
		case !local && !c.Insecure:
			wrong("%s: %s can be reached by others, and the API has no TLS yet: use an address such as 127.0.0.1, or accept the risk with --insecure", a.flag, a.addr)
		}
	}
	errs = append(errs, checkActive(c.Active)...)
	errs = append(errs, checkRetention(c.Hot, c.History)...)
	errs = append(errs, c.Cluster.check(c.Insecure)...)
	return errors.Join(errs...)
}

// maxActive is how many runs that have not ended memory is meant for.
const maxActive = 1_000_000

// checkActive returns all that is wrong with the bounds of runs that have not ended.
func checkActive(b plan.Bounds) (errs []error) {
	for _, n := range []struct {
		flag string
		is   int
	}{{"--active-runs", b.Runs}, {"--active-runs-per-job", b.RunsPerJob}} {
		if n.is < 1 || n.is > maxActive {
			errs = append(errs, fmt.Errorf("%s: %d is not between 1 and %d", n.flag, n.is, maxActive))
		}
	}
	if len(errs) == 0 && b.RunsPerJob > b.Runs {
		errs = append(errs, fmt.Errorf("--active-runs-per-job: %d is more than the %d that all jobs may have together, --active-runs", b.RunsPerJob, b.Runs))
	}
	return errs
}

// maxGroup is how many primaries a group may be formed of. More would only make
// each write slower: seven survive the loss of three.
const maxGroup = 7

// check returns all that is wrong.
func (c Cluster) check(insecure bool) (errs []error) {
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	local := true
	if c.Addr != "" {
		var err error
		if local, err = loopback(c.Addr); err != nil {
			wrong("--cluster-addr: %w; give it as host:port", err)
		} else if err := dialable(c.advertised()); err != nil && (c.Advertise != "" || !local) {
			wrong("--cluster-advertise: %w", err)
		}
	}
	if !local && c.Key == "" && !insecure {
		wrong("--cluster-key: %s can be reached by others: make a key with \"schedd keygen\", give its file to all primaries, or accept the risk with --insecure", c.Addr)
	}
	others := c.others()
	for _, a := range others {
		if err := dialable(a); err != nil {
			wrong("--join: %w", err)
		}
	}
	switch n := c.BootstrapExpect; {
	case n < 1 || n > maxGroup:
		wrong("--bootstrap-expect: %d is not between 1 and %d", n, maxGroup)
	case n == 1 && len(others) == 0:
	case c.Addr == "":
		wrong("--cluster-addr: a group needs an address for the others")
	case n > 1 && len(others) != n-1 && len(others) != n:
		wrong("--join: names %d other primaries, and --bootstrap-expect %d needs all %d of them", len(others), n, n-1)
	}
	return errs
}

// dialable tells why nobody could dial an address.
func dialable(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is no address: %s; give it as host:port", addr, strings.TrimPrefix(err.Error(), "address "))
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q has no port that can be dialled; give it as host:port", addr)
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		return fmt.Errorf("%q can't be dialled by others: name the address that they reach this primary at", addr)
	}
	return nil
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
