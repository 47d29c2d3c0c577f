package deploy_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func compose(t *testing.T) tree {
	t.Helper()
	return documents(t, "compose.yml")[0]
}

// Whatever a service names is there, and nothing is there for nobody.
func TestComposeNamesExist(t *testing.T) {
	file := compose(t)
	services := file.get("services")
	used := map[string]map[string]bool{"volumes": {}, "networks": {}}
	for _, name := range services.keys() {
		s := services.get(name)
		if s.has("depends_on") {
			for _, other := range s.get("depends_on").texts() {
				services.get(other)
			}
		}
		if s.has("networks") {
			for _, n := range s.get("networks").texts() {
				used["networks"][n] = true
			}
		}
		for _, v := range s.get("volumes").texts() {
			source, _, _ := strings.Cut(v, ":")
			if !strings.HasPrefix(source, ".") {
				used["volumes"][source] = true
			} else if _, err := os.Stat(source); err != nil {
				t.Errorf("%s mounts what is not there: %v", name, err)
			}
		}
	}
	for kind, names := range used {
		for _, name := range file.get(kind).keys() {
			if !names[name] {
				t.Errorf("nobody uses the %s %s", kind, name)
			}
			delete(names, name)
		}
		for name := range names {
			t.Errorf("the %s have no %s", kind, name)
		}
	}
}

// The images are built from targets that the Dockerfile has, with the Go that
// go.mod asks for.
func TestComposeBuildsWhatThereIs(t *testing.T) {
	dockerfile := read(t, "Dockerfile")
	services := compose(t).get("services")
	for _, name := range services.keys() {
		if s := services.get(name); s.has("build") {
			target, file := s.get("build", "target").text(), s.get("build", "dockerfile").text()
			if filepath.Clean(filepath.Join(s.get("build", "context").text(), file)) != filepath.Join("..", "deploy", "Dockerfile") {
				t.Errorf("%s is built from %s", name, file)
			}
			if !strings.Contains(dockerfile, " AS "+target+"\n") {
				t.Errorf("%s is built from the target %s, which the Dockerfile does not have", name, target)
			}
		}
	}
	version := strings.TrimSpace(after(t, dockerfile, "ARG GO="))
	if wanted := after(t, read(t, "../go.mod"), "\ngo "); !strings.HasPrefix(wanted, version) {
		t.Errorf("the Dockerfile builds with Go %s, and go.mod asks for %s", version, wanted)
	}
}

// It shows what it is for: workers and primaries can't reach each other, and only
// the load balancer can be reached from outside, from this machine.
func TestComposeHasOneWayIn(t *testing.T) {
	services := compose(t).get("services")
	if !compose(t).get("networks", "primaries", "internal").v.(bool) {
		t.Error("the primaries' network leads outside")
	}
	for _, name := range services.keys() {
		s := services.get(name)
		if name == "lb" {
			for _, p := range s.get("ports").texts() {
				if !strings.HasPrefix(p, "127.0.0.1:") {
					t.Errorf("port %s is published to others", p)
				}
			}
			continue
		}
		if s.has("ports") {
			t.Errorf("%s publishes ports", name)
		}
		if s.has("networks") && len(s.get("networks").texts()) > 1 {
			t.Errorf("%s is in the networks %v", name, s.get("networks").texts())
		}
	}
	for _, w := range []string{"w1", "w2"} {
		if n := services.get(w, "networks").texts(); slices.Contains(n, "primaries") {
			t.Errorf("%s is among the primaries", w)
		}
	}
}

// The load balancer's configuration and the primaries' list name primaries by what
// they are called in their network, and workers the load balancer likewise.
func TestComposeNamesResolve(t *testing.T) {
	services := compose(t).get("services")
	var names []string
	for _, p := range []string{"p1", "p2", "p3"} {
		s := services.get(p)
		alias := s.get("networks", "primaries", "aliases").only().text()
		names = append(names, alias)
		if !slices.Contains(s.get("command").texts(), "--cluster-advertise="+alias+":7420") {
			t.Errorf("%s is called %s and advertises another name", p, alias)
		}
	}
	if got, want := services.get("p1", "environment", "SCHEDD_JOIN").text(), strings.Join(names, ":7420,")+":7420"; got != want {
		t.Errorf("the primaries are to join %s, and are called %s", got, want)
	}
	if got := backends(t, "load-balancers/haproxy-tcp.cfg"); !slices.Equal(got, names) {
		t.Errorf("the load balancer has the backends %v, and the primaries are called %v", got, names)
	}
	lb := services.get("lb", "networks", "outside", "aliases").only().text()
	if got := services.get("w1", "environment", "SCHEDAGENT_SERVER").text(); got != lb+":7421" {
		t.Errorf("workers dial %s, and the load balancer is called %s", got, lb)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// after returns the rest of the line that follows a mark in text.
func after(t *testing.T, text, mark string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, mark)
	if !ok {
		t.Fatalf("there is no %q", mark)
	}
	line, _, _ := strings.Cut(rest, "\n")
	return line
}
