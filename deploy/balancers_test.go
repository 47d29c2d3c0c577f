package deploy_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// balancers are the configurations of load balancers.
var balancers = []string{
	"load-balancers/haproxy-tcp.cfg", "load-balancers/haproxy-h2.cfg", "load-balancers/nginx.conf", "load-balancers/envoy.yaml",
}

var backend = regexp.MustCompile(`(?m)^[^#\n]*?([a-z0-9.]+\.example)(?::|, port_value: )(\d+)`)

// backends returns the hosts of the primaries that a load balancer knows.
func backends(t *testing.T, file string) (hosts []string) {
	t.Helper()
	for _, m := range backend.FindAllStringSubmatch(read(t, file), -1) {
		if m[2] != "7421" {
			t.Errorf("%s sends to port %s of %s", file, m[2], m[1])
		}
		hosts = append(hosts, m[1])
	}
	return hosts
}

func TestBalancersKnowTheSamePrimaries(t *testing.T) {
	for _, file := range balancers {
		if got, want := backends(t, file), []string{"p1.example", "p2.example", "p3.example"}; !slices.Equal(got, want) {
			t.Errorf("%s has the backends %v, want %v", file, got, want)
		}
	}
}

// timeouts are those that count while a stream is silent, and those that end what
// is left after a reload.
var timeouts = map[string]struct{ silent, reload []string }{
	"load-balancers/haproxy-tcp.cfg": {[]string{"timeout client ", "timeout server "}, []string{"hard-stop-after "}},
	"load-balancers/haproxy-h2.cfg":  {[]string{"timeout client ", "timeout server "}, []string{"hard-stop-after "}},
	"load-balancers/nginx.conf":      {[]string{"client_body_timeout ", "grpc_read_timeout ", "grpc_send_timeout "}, []string{"worker_shutdown_timeout "}},
	"load-balancers/envoy.yaml":      {[]string{"stream_idle_timeout: "}, nil},
}

// A load balancer is never the first to lose patience with a silent stream, and
// lets what is there at a reload live as long as a stream does.
func TestBalancersHavePatience(t *testing.T) {
	longest := wire.Spread(wire.StreamLife, wire.StreamLifeSpread, 1)
	for _, file := range balancers {
		for _, name := range timeouts[file].silent {
			if d := setting(t, file, name); d <= wire.DeadAfter {
				t.Errorf("%s: %s%v, and a session is given up after %v of silence", file, name, d, wire.DeadAfter)
			}
		}
		for _, name := range timeouts[file].reload {
			if d := setting(t, file, name); d <= longest {
				t.Errorf("%s: %s%v, and a stream lives for up to %v", file, name, d, longest)
			}
		}
	}
}

// setting reads a duration in a configuration.
func setting(t *testing.T, file, name string) time.Duration {
	t.Helper()
	m := regexp.MustCompile(`(?m)^ *` + regexp.QuoteMeta(name) + `([0-9smh]+);?$`).FindStringSubmatch(read(t, file))
	if m == nil {
		t.Fatalf("%s does not set %q", file, name)
	}
	d, err := time.ParseDuration(m[1])
	if err != nil {
		t.Fatalf("%s: %s: %v", file, name, err)
	}
	return d
}

// They ask primaries for what primaries answer.
func TestBalancersAskForHealth(t *testing.T) {
	for file, asks := range map[string]string{
		"load-balancers/haproxy-tcp.cfg": "GET /readyz",
		"load-balancers/haproxy-h2.cfg":  "uri /readyz",
		"load-balancers/envoy.yaml":      "service_name: " + agentv1.AgentGateway_ServiceDesc.ServiceName,
	} {
		if !strings.Contains(read(t, file), asks) {
			t.Errorf("%s does not ask with %q", file, asks)
		}
	}
	envoy := documents(t, "load-balancers/envoy.yaml")[0]
	listener := envoy.get("static_resources", "listeners").only()
	manager := listener.get("filter_chains").only().get("filters").only().get("typed_config")
	route := manager.get("route_config", "virtual_hosts").only().get("routes").only().get("route", "cluster").text()
	if cluster := envoy.get("static_resources", "clusters").only().get("name").text(); route != cluster {
		t.Errorf("envoy.yaml routes to the cluster %s, and has %s", route, cluster)
	}
}

// What is said of schedd's own timing is so.
func TestBalancersAreToldTheTimes(t *testing.T) {
	ping := fmt.Sprintf("every %.0f s", wire.PingInterval.Seconds())
	slowest := fmt.Sprintf("%.0f s apart at most", wire.Spread(wire.PingInterval, wire.PingSpread, 1).Seconds())
	dead := fmt.Sprintf("after %.0f s of silence", wire.DeadAfter.Seconds())
	keepalive := fmt.Sprintf("after %.0f s without traffic; %.0f s for the answer", wire.KeepaliveTime.Seconds(), wire.KeepaliveTimeout.Seconds())
	for file, says := range map[string][]string{
		"load-balancers/README.md":          {ping, slowest, dead, keepalive},
		"load-balancers/haproxy-tcp.cfg":    {strings.Replace(ping, "every", "each", 1)},
		"load-balancers/nginx.conf":         {ping},
		"load-balancers/envoy.yaml":         {ping},
		"../docs/behind-a-load-balancer.md": {ping, dead},
	} {
		text := strings.Join(strings.Fields(read(t, file)), " ") // wherever its lines end
		for _, words := range says {
			if !strings.Contains(text, words) {
				t.Errorf("%s does not say %q", file, words)
			}
		}
	}
}
