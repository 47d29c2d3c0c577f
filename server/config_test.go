package server

import (
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	if c := DefaultConfig(); c.Validate() != nil {
		t.Errorf("the defaults: %v", c.Validate())
	}
	tests := []struct {
		name string
		edit func(*Config)
		want string // in the error; "": none
	}{
		{"another port", func(c *Config) { c.APIAddr = "127.0.0.1:9000" }, ""},
		{"IPv6", func(c *Config) { c.APIAddr = "[::1]:9000" }, ""},
		{"localhost", func(c *Config) { c.WebAddr = "localhost:0" }, ""},

		// What others can reach has to be asked for.
		{"all addresses", func(c *Config) { c.APIAddr = ":7421" }, "--api-addr: :7421 can be reached by others"},
		{"all addresses, insecure", func(c *Config) { c.APIAddr, c.Insecure = ":7421", true }, ""},
		{"a name", func(c *Config) { c.WebAddr = "web.example.com:80" }, "--web-addr: web.example.com:80 can be reached"},
		{"a private address", func(c *Config) { c.Cluster.Addr = "10.0.0.1:7420" }, "--cluster-key: 10.0.0.1:7420 can be reached"},

		{"no port", func(c *Config) { c.APIAddr = "127.0.0.1" }, `--api-addr: "127.0.0.1" is no address`},
		{"no such port", func(c *Config) { c.APIAddr = "127.0.0.1:70000" }, `"127.0.0.1:70000" has no valid port`},
		{"no name", func(c *Config) { c.NodeID = "" }, "--node-id"},
		{"no data", func(c *Config) { c.DataDir = "" }, "--data-dir"},

		// What is kept.
		{"a small history", func(c *Config) { c.Hot.Runs, c.History.Runs = 10, 10; c.Hot.RunsPerJob, c.History.RunsPerJob = 1, 1 }, ""},
		{"no history", func(c *Config) { c.History.Runs = 0 }, "--history-runs: 0 runs can't be kept"},
		{"none of a job", func(c *Config) { c.Hot.RunsPerJob = -1 }, "--hot-runs-per-job: -1 runs can't be kept"},
		{"no time", func(c *Config) { c.History.Age = time.Second }, "--history-age: 1s is too short"},
		{"more in memory than it is meant for", func(c *Config) { c.Hot.Runs = 300_000 }, "--hot-runs: 300000 is more than memory is meant for"},
		{"no active runs", func(c *Config) { c.Active.Runs = 0 }, "--active-runs: 0 is not between 1 and 1000000"},
		{"more active runs than memory is meant for", func(c *Config) { c.Active.RunsPerJob = 2_000_000 }, "--active-runs-per-job: 2000000 is not between"},
		{"more of a job than of all", func(c *Config) { c.Active.Runs = 100 }, "--active-runs-per-job: 10000 is more than the 100"},
		{"less on disk than in memory", func(c *Config) { c.History.Age = time.Hour }, "the history can't keep less than memory does"},

		// A group.
		{"three", func(c *Config) { c.Cluster.BootstrapExpect, c.Cluster.Join = 3, "p2:7420, p3:7420" }, ""},
		{"three with itself", func(c *Config) { c.Cluster.BootstrapExpect, c.Cluster.Join = 3, "127.0.0.1:7420,p2:7420,p3:7420" }, ""},
		{"three with itself by another name", func(c *Config) { c.Cluster.BootstrapExpect, c.Cluster.Join = 3, "p1:7420,p2:7420,p3:7420" }, ""},
		{"join one", func(c *Config) { c.Cluster.Join = "p2:7420" }, ""},
		{"with a key", func(c *Config) { c.Cluster.Addr, c.Cluster.Key = "10.0.0.1:7420", "cluster.key" }, ""},
		{"no others", func(c *Config) { c.Cluster.BootstrapExpect = 3 }, "--join: names 0 other primaries, and --bootstrap-expect 3 needs all 2 of them"},
		{"one too few", func(c *Config) { c.Cluster.BootstrapExpect, c.Cluster.Join = 3, "p2:7420" }, "--join: names 1 other primaries"},
		{"none", func(c *Config) { c.Cluster.BootstrapExpect = 0 }, "--bootstrap-expect: 0 is not between 1 and 7"},
		{"no address to join", func(c *Config) { c.Cluster.Join = "p2" }, `--join: "p2" is no address`},
		{"nothing to dial", func(c *Config) { c.Cluster.Addr, c.Cluster.Key = ":7420", "k" }, `--cluster-advertise: ":7420" can't be dialled`},
		{"alone, with others", func(c *Config) { c.Cluster.Addr, c.Cluster.Join = "", "p2:7420" }, "--cluster-addr: a group needs an address"},
		{"alone for ever", func(c *Config) { c.Cluster.Addr = "" }, ""},

		{"all at once", func(c *Config) { c.NodeID, c.DataDir, c.APIAddr = "", "", "x" }, "--data-dir"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := DefaultConfig()
			tt.edit(&c)
			err := c.Validate()
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	c := DefaultConfig()
	c.NodeID, c.DataDir, c.APIAddr = "", "", "x"
	if err := c.Validate(); strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("error %v, want three faults", err)
	}
}
