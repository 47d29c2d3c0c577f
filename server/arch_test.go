// Package server_test holds the house rules of all of schedd, not only of this
// package: which package may know which (arch_test.go), and how code is written
// here (house_test.go). Each rule is itself tested: see TestRulesBite.
package server_test

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/schedd/schedd"

// may lists, for each package, the packages of ours it may import: dependencies
// point at data, in one direction. Adding an arrow, or a package, is an edit of
// this list, and a reviewer reads it. What tests import is their own business.
var may = map[string][]string{
	// What goes over a wire, and what both ends of it agree on. They know nothing.
	"proto/schedd/v1":        {},
	"proto/schedd/agent/v1":  {},
	"proto/schedd/peer/v1":   {"proto/schedd/agent/v1"},
	"proto/schedd/log/v1":    {},
	"proto/schedd/runner/v1": {},
	"proto/wire":             {"proto/schedd/agent/v1"},
	"proto/settings":         {},
	"proto/slack":            {},

	// What all primaries agree on.
	"raftstore/state": {},
	"raftstore":       {"raftstore/state", "proto/schedd/log/v1"},

	// Raft with nothing around it: what a primary is measured by.
	"raftstore/bareraft": {},

	// Histories for the tests of both; it is linked into no program.
	"raftstore/raftstoretest": {"raftstore/state"},

	// A primary: decide (schedule, plan), do (lead), talk (peer, gateway, api), keep (runlog).
	"server/schedule": {},
	"server/plan":     {"raftstore/state", "server/schedule"},
	"server/peer":     {"proto/schedd/agent/v1", "proto/schedd/peer/v1"},
	"server/group":    {"raftstore", "server/peer", "proto/schedd/peer/v1"},
	"server/lead":     {"raftstore", "raftstore/state", "server/plan", "server/peer", "proto/schedd/agent/v1"},
	"server/runlog":   {},
	"server/history":  {"raftstore", "raftstore/state", "proto/schedd/peer/v1"},
	"server/replica":  {"server/runlog", "proto/schedd/agent/v1", "proto/schedd/peer/v1"},
	"server/gateway":  {"server/peer", "server/runlog", "proto/schedd/agent/v1", "proto/wire"},
	"server/api": {
		"raftstore", "raftstore/state", "server/history", "server/plan", "server/schedule", "server/lead", "server/peer", "server/runlog",
		"proto/schedd/v1", "proto/schedd/peer/v1", "proto/wire",
	},
	"server/clusternet": {"proto/wire"},
	"server": {
		"raftstore", "raftstore/state",
		"server/api", "server/clusternet", "server/gateway", "server/group", "server/history", "server/lead", "server/peer", "server/plan", "server/replica",
		"server/runlog", "server/schedule",
		"proto/schedd/v1", "proto/schedd/agent/v1", "proto/schedd/log/v1", "proto/schedd/peer/v1", "proto/settings", "proto/wire",
	},

	// Clusters of real processes, to be harmed or measured.
	"server/local": {},

	// What measures one: figures and what they are made of (report, measure) are pure.
	"server/bench/report":   {},
	"server/bench/measure":  {},
	"server/bench/baseline": {},
	// Workers at the wire know no agent and no primary.
	"server/bench/fleet":    {"proto/schedd/agent/v1", "proto/wire"},
	"server/bench/balancer": {},
	"server/bench": {
		"server/local", "server/bench/report", "server/bench/measure", "server/bench/baseline", "server/bench/fleet", "server/bench/balancer", "raftstore/bareraft",
		"proto/schedd/v1", "proto/schedd/agent/v1", "proto/settings", "proto/wire",
	},

	// What harms a cluster on purpose, and judges what came of it.
	"server/torture/verdict": {},
	"server/torture":         {"server/torture/verdict", "proto/schedd/v1", "proto/wire"},
	"server/torture/harm":    {"server/torture"},

	"server/systest":                 {}, // test files only
	"server/systest/e2e":             {}, // likewise, with real processes
	"server/systest/natlab":          {}, // likewise, with real networks
	"server/systest/natlab/faultnet": {}, // linked into no program
	"server/cmd/schedd": {
		"server", "server/bench", "server/bench/report", "server/history", "server/local", "server/torture", "server/torture/harm", "server/torture/verdict", "agent", "raftstore",
		"proto/schedd/v1", "proto/settings", "proto/slack", "proto/wire",
	},

	// A worker. It never knows a primary's code.
	"agent/crew":              {},
	"agent/gather":            {},
	"agent/journal":           {"agent/gather"},
	"agent/spool":             {},
	"agent/runner":            {"agent/crew", "agent/runner/cgroup", "agent/runner/policy", "proto/slack"},
	"agent/runner/cgroup":     {},
	"agent/runner/policy":     {"agent/runner/cgroup", "agent/runner/trust"},
	"agent/runner/trust":      {},
	"agent/runner/fakerunner": {"agent/runner"},

	// A control group for tests; it is linked into no program.
	"agent/runner/cgroup/cgrouptest": {"agent/runner/cgroup"},

	"agent/runner/remote": {"agent/crew", "agent/gather", "agent/journal", "agent/runner", "agent/runner/trust", "proto/schedd/runner/v1"},
	"agent/session":       {"proto/schedd/agent/v1", "proto/wire"},
	"agent": {
		"agent/crew", "agent/journal", "agent/runner", "agent/runner/cgroup", "agent/runner/policy", "agent/runner/remote", "agent/runner/trust", "agent/session", "agent/spool",
		"proto/schedd/agent/v1", "proto/settings", "proto/wire",
	},
	"agent/cmd/schedagent": {"agent", "proto/settings", "proto/slack"},

	// How both get onto machines. No code: test files only.
	"deploy": {},
}

// only lists what others wrote and just these of our packages may know, by the
// beginning of the import path.
var only = map[string][]string{
	"github.com/hashicorp/raft": {"raftstore", "raftstore/bareraft"},
	"modernc.org/sqlite":        {"server/history"},
	"os/exec":                   {"agent/runner", "server/bench/baseline", "server/local", "server/torture/harm"},
}

// pure packages are computations: the same input gives the same output, on any
// machine, in any year. A primary that replays its log must come to the same
// state as it did then; a verdict depends on what was seen alone.
var pure = []string{"raftstore/state", "server/plan", "server/schedule", "server/torture/verdict", "server/bench/report", "server/bench/measure"}

// impure is what they must not import, nor anything below it.
var impure = []string{
	"context", "crypto/rand", "log", "math/rand", "net", "os", "runtime", "sync", "syscall",
	"google.golang.org/grpc", "google.golang.org/protobuf",
}

// clock is what they must not touch of package time, by name or by value.
var clock = []string{
	"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Local",
}

func TestEveryPackageIsOnTheMap(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range sources(t) {
		seen[s.pkg] = true
	}
	for pkg := range seen {
		if _, ok := may[pkg]; !ok {
			t.Errorf("%s is a package that the map in server/arch_test.go does not have: add it, with what it may import", pkg)
		}
	}
	for from, tos := range may {
		if !seen[from] {
			t.Errorf("the map in server/arch_test.go has %s, which does not exist", from)
		}
		for _, to := range tos {
			if _, ok := may[to]; !ok {
				t.Errorf("the map in server/arch_test.go lets %s import %s, which it does not have", from, to)
			}
		}
	}
	for _, pkg := range pure {
		if _, ok := may[pkg]; !ok {
			t.Errorf("%s is said to be pure and is not in the map", pkg)
		}
	}
}

// The map is a DAG, whatever the code does at the moment.
func TestMapHasNoCycle(t *testing.T) {
	var visit func(pkg string, trail []string)
	visit = func(pkg string, trail []string) {
		if slices.Contains(trail, pkg) {
			t.Fatalf("packages that may import each other: %s", strings.Join(append(trail, pkg), " -> "))
		}
		for _, to := range may[pkg] {
			visit(to, append(slices.Clone(trail), pkg))
		}
	}
	for pkg := range may {
		visit(pkg, nil)
	}
}

// imports: an arrow has to be on the map.
func imports(s source, complain complaint) {
	if s.test {
		return
	}
	for _, imp := range s.file.Imports {
		name := importPath(imp)
		to, ours := strings.CutPrefix(name, module+"/")
		if ours && !slices.Contains(may[s.pkg], to) {
			complain(imp, "%s may not import %s: see the map in server/arch_test.go", s.pkg, to)
		}
		for dependency, owners := range only {
			if strings.HasPrefix(name, dependency) && !slices.Contains(owners, s.pkg) {
				complain(imp, "only %s may import %s", strings.Join(owners, " and "), name)
			}
		}
	}
}

// purity: no clock, no dice, no I/O, no goroutine.
func purity(s source, complain complaint) {
	if s.test || !slices.Contains(pure, s.pkg) {
		return
	}
	for _, imp := range s.file.Imports {
		name := importPath(imp)
		for _, bad := range impure {
			if name == bad || strings.HasPrefix(name, bad+"/") {
				complain(imp, "%s is pure and may not import %s", s.pkg, name)
			}
		}
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if s.from(n, "time") && slices.Contains(clock, n.Sel.Name) {
				complain(n, "%s is pure and may not use time.%s: take now as a parameter", s.pkg, n.Sel.Name)
			}
		case *ast.GoStmt:
			complain(n, "%s is pure and may not start goroutines", s.pkg)
		case *ast.ChanType, *ast.SelectStmt, *ast.SendStmt:
			complain(n, "%s is pure and may not use channels", s.pkg)
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				complain(n, "%s is pure and may not use channels", s.pkg)
			}
		}
		return true
	})
}

// importPath returns the path without its quotes.
func importPath(imp *ast.ImportSpec) string {
	name, err := strconv.Unquote(imp.Path.Value)
	if err != nil {
		return imp.Path.Value
	}
	return name
}

// from reports whether sel picks something out of an imported package, under
// whatever name it was imported.
func (s source) from(sel *ast.SelectorExpr, imported string) bool {
	x, ok := sel.X.(*ast.Ident)
	return ok && slices.ContainsFunc(s.file.Imports, func(imp *ast.ImportSpec) bool {
		name := path.Base(imported)
		if imp.Name != nil {
			name = imp.Name.Name
		}
		return importPath(imp) == imported && name == x.Name
	})
}
