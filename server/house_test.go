package server_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Longer than this, a file has two subjects and a function does two things.
const (
	maxFileLines     = 500
	maxFunctionLines = 60
)

// source is one Go file of ours, whatever system or tag it is built for.
type source struct {
	name      string // relative to the root, with slashes
	pkg       string // the folder it is in, likewise
	test      bool
	generated bool
	fset      *token.FileSet
	file      *ast.File
}

// complaint tells what is wrong at a node.
type complaint func(at ast.Node, format string, args ...any)

// rules are the rules that one file can keep or break.
var rules = map[string]func(source, complaint){
	"imports": imports,
	"purity":  purity,
	"exits":   exits,
	"sizes":   sizes,
	"sleeps":  sleeps,
}

func TestRules(t *testing.T) {
	for name, rule := range rules {
		t.Run(name, func(t *testing.T) {
			for _, s := range sources(t) {
				rule(s, func(at ast.Node, format string, args ...any) {
					t.Errorf("%s:%d: %s", s.name, s.fset.Position(at.Pos()).Line, fmt.Sprintf(format, args...))
				})
			}
		})
	}
}

// Each package says what it is and what it never does, where go doc shows it.
func TestEveryPackageHasDoc(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if s.generated || s.test {
			continue
		}
		documented[s.pkg] = documented[s.pkg] || hasPackageDoc(s)
	}
	for pkg, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment (the usual beginning: %q)", pkg, "// Package "+path.Base(pkg)+" ...")
		}
	}
}

// hasPackageDoc reports whether s has the comment. That of a program begins with
// the name of the program.
func hasPackageDoc(s source) bool {
	text := s.file.Doc.Text()
	if s.file.Name.Name == "main" {
		return strings.HasPrefix(strings.ToLower(text), path.Base(s.pkg)) ||
			strings.HasPrefix(text, "Command "+path.Base(s.pkg))
	}
	return strings.HasPrefix(text, "Package "+s.file.Name.Name+" ")
}

// exits: a program ends where main says so. Elsewhere a panic is for what we
// ourselves made impossible, and names its package.
func exits(s source, complain complaint) {
	if s.test || s.generated || strings.Contains(s.pkg+"/", "/cmd/") {
		return
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		switch f := call.Fun.(type) {
		case *ast.Ident:
			prefix := s.file.Name.Name + ": "
			if f.Name == "panic" && !strings.HasPrefix(leadingText(call.Args[0]), prefix) {
				complain(call, "a panic is for what we made impossible ourselves, and begins with %q; return an error", prefix)
			}
		case *ast.SelectorExpr:
			fatal := strings.HasPrefix(f.Sel.Name, "Fatal") || strings.HasPrefix(f.Sel.Name, "Panic")
			if s.from(f, "os") && f.Sel.Name == "Exit" || s.from(f, "log") && fatal {
				complain(call, "only a main may end the program; return an error")
			}
		}
		return true
	})
}

// leadingText returns the text that the value of an expression begins with, as
// far as that can be seen: "a", "a"+x, fmt.Sprintf("a", ...).
func leadingText(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		if err != nil {
			return ""
		}
		return text
	case *ast.BinaryExpr:
		return leadingText(e.X)
	case *ast.CallExpr:
		if len(e.Args) > 0 {
			return leadingText(e.Args[0])
		}
	}
	return ""
}

// sizes: tests may be long lists, generated files are as long as they are.
func sizes(s source, complain complaint) {
	if s.test || s.generated {
		return
	}
	if lines := s.fset.File(s.file.Pos()).LineCount(); lines > maxFileLines {
		complain(s.file, "%d lines, the limit is %d: find the second subject", lines, maxFileLines)
	}
	for _, decl := range s.file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if lines := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1; lines > maxFunctionLines {
			complain(f, "%s has %d lines, the limit is %d", f.Name.Name, lines, maxFunctionLines)
		}
	}
}

// bubbled packages have nothing but tests, all of them in bubbles, which one of
// their files makes.
var bubbled = []string{"server/systest"}

// sleeps: whoever sleeps polls, or guesses how long something takes. In a
// bubble of testing/synctest a sleep is exact and costs nothing.
func sleeps(s source, complain complaint) {
	bubble := slices.ContainsFunc(s.file.Imports, func(imp *ast.ImportSpec) bool {
		return importPath(imp) == "testing/synctest"
	})
	if s.test && (bubble || slices.Contains(bubbled, s.pkg)) {
		return
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && s.from(sel, "time") && sel.Sel.Name == "Sleep" {
			complain(n, "time.Sleep is for tests in a bubble; wait for what you wait for")
		}
		return true
	})
}

// sources parses all Go files of this module.
func sources(t *testing.T) []source {
	t.Helper()
	root := os.DirFS("..")
	var all []source
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != "." && skip(root, name):
			return fs.SkipDir
		case entry.IsDir() || path.Ext(name) != ".go":
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		s, err := parse(name, text)
		if err != nil {
			return err
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// skip reports whether a folder is no part of the module: what the go command
// ignores, and modules of their own.
func skip(root fs.FS, dir string) bool {
	base := path.Base(dir)
	if base == "testdata" || base == "vendor" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return true
	}
	_, err := fs.Stat(root, path.Join(dir, "go.mod"))
	return err == nil
}

func parse(name string, text []byte) (source, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, filepath.FromSlash(name), text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return source{}, err
	}
	return source{
		name:      name,
		pkg:       path.Dir(name),
		test:      strings.HasSuffix(name, "_test.go"),
		generated: ast.IsGenerated(file),
		fset:      fset,
		file:      file,
	}, nil
}

// A rule that cannot fail protects nothing: each is broken here once, and the
// line next to it kept.
func TestRulesBite(t *testing.T) {
	long := func(lines int) string { return "package p\n" + strings.Repeat("\n", lines-1) }
	function := func(lines int) string { return "package p\nfunc f() {\n" + strings.Repeat("\n", lines-2) + "}" }
	for _, test := range []struct {
		rule, name, text string
		bites            bool
	}{
		{"imports", "server/plan/x.go", `import "` + module + `/server/schedule"`, false},
		{"imports", "server/plan/x.go", `import "` + module + `/raftstore"`, true},
		{"imports", "server/plan/x.go", `import r "` + module + `/raftstore"`, true},
		{"imports", "server/plan/x_test.go", `import "` + module + `/raftstore"`, false},
		{"imports", "agent/x.go", `import "` + module + `/server"`, true},
		{"imports", "agent/session/x.go", `import "` + module + `/raftstore/state"`, true},
		{"imports", "agent/x_windows.go", `import "` + module + `/server"`, true},
		{"imports", "unheard/of/x.go", `import "` + module + `/proto/wire"`, true},
		{"imports", "raftstore/x.go", `import "github.com/hashicorp/raft"`, false},
		{"imports", "raftstore/state/x.go", `import "github.com/hashicorp/raft"`, true},
		{"imports", "server/x.go", `import "github.com/hashicorp/raft-boltdb/v2"`, true},
		{"imports", "agent/runner/x.go", `import "os/exec"`, false},
		{"imports", "agent/x.go", `import "os/exec"`, true},
		{"imports", "server/cmd/schedd/x.go", `import "os/exec"`, true},
		{"imports", "server/local/x.go", `import "os/exec"`, false},
		{"imports", "server/torture/x.go", `import "os/exec"`, true},

		{"purity", "raftstore/state/x.go", `import "time"; var day = 24 * time.Hour`, false},
		{"purity", "raftstore/state/x.go", `import "time"; var now = time.Now()`, true},
		{"purity", "raftstore/state/x.go", `import "time"; var now = time.Now`, true},
		{"purity", "raftstore/state/x.go", `import t "time"; var now = t.Now()`, true},
		{"purity", "raftstore/state/x.go", `import "time"; var here = time.Local`, true},
		{"purity", "raftstore/state/x.go", `type t struct{ Now int }; func f(time t) int { return time.Now }`, false},
		{"purity", "raftstore/state/x_test.go", `import "time"; var now = time.Now()`, false},
		{"purity", "raftstore/x.go", `import "time"; var now = time.Now()`, false},
		{"purity", "server/plan/x.go", `import "context"`, true},
		{"purity", "server/plan/x.go", `import "log/slog"`, true},
		{"purity", "server/plan/x.go", `import "math/rand/v2"`, true},
		{"purity", "server/plan/x.go", `import "sync/atomic"`, true},
		{"purity", "server/plan/x.go", `import "google.golang.org/protobuf/proto"`, true},
		{"purity", "server/plan/x.go", `import "math"`, false},
		{"purity", "server/schedule/x.go", `func f() { go f() }`, true},
		{"purity", "server/schedule/x.go", `var c chan int`, true},
		{"purity", "server/schedule/x.go", `func f(c func() any) { <-c() }`, true},
		{"purity", "server/schedule/x.go", `func f() { select {} }`, true},
		{"purity", "server/lead/x.go", `func f() { go f(); select {} }`, false},

		{"exits", "agent/x.go", `func f() { panic("p: no row") }`, false},
		{"exits", "agent/x.go", `import "fmt"; func f() { panic(fmt.Sprintf("p: row %d", 1)) }`, false},
		{"exits", "agent/x.go", `func f(s string) { panic("p: " + s) }`, false},
		{"exits", "agent/x.go", `func f() { panic("no row") }`, true},
		{"exits", "agent/x.go", `func f(err error) { panic(err) }`, true},
		{"exits", "agent/x.go", `import "log"; func f() { log.Fatalf("no") }`, true},
		{"exits", "agent/x.go", `import "os"; func f() { os.Exit(1) }`, true},
		{"exits", "agent/x_test.go", `import "os"; func f() { os.Exit(1) }`, false},
		{"exits", "server/cmd/schedd/x.go", `import "os"; func f() { os.Exit(1) }`, false},

		{"sizes", "agent/x.go", long(maxFileLines), false},
		{"sizes", "agent/x.go", long(maxFileLines + 1), true},
		{"sizes", "agent/x_test.go", long(maxFileLines + 1), false},
		{"sizes", "agent/x.go", "// Code generated by hand. DO NOT EDIT.\n" + long(maxFileLines), false},
		{"sizes", "agent/x.go", function(maxFunctionLines), false},
		{"sizes", "agent/x.go", function(maxFunctionLines + 1), true},

		{"sleeps", "agent/x.go", `import "time"; func f() { time.Sleep(1) }`, true},
		{"sleeps", "agent/x.go", `import "time"; import "testing/synctest"; func f() { time.Sleep(1); synctest.Wait() }`, true},
		{"sleeps", "agent/x_test.go", `import "time"; func f() { time.Sleep(1) }`, true},
		{"sleeps", "agent/x_test.go", `import "time"; import "testing/synctest"; func f() { time.Sleep(1); synctest.Wait() }`, false},
		{"sleeps", "server/systest/x_test.go", `import "time"; func f() { time.Sleep(1) }`, false},
		{"sleeps", "server/systest/x.go", `import "time"; func f() { time.Sleep(1) }`, true},
		{"sleeps", "server/systest/e2e/x_test.go", `import "time"; func f() { time.Sleep(1) }`, true},
	} {
		t.Run(test.rule, func(t *testing.T) {
			text := test.text
			if !strings.Contains(text, "package p\n") {
				text = "package p\n" + text
			}
			s, err := parse(test.name, []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			bites := false
			rules[test.rule](s, func(ast.Node, string, ...any) { bites = true })
			if bites != test.bites {
				t.Errorf("%s with %.80q: complains is %v, want %v", test.name, test.text, bites, test.bites)
			}
		})
	}
}

func TestPackageDocRuleBites(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       bool
	}{
		{"agent/x.go", "// Package agent keeps a session.\npackage agent", true},
		{"agent/x.go", "package agent", false},
		{"agent/x.go", "// The agent.\npackage agent", false},
		{"agent/x.go", "// Package agent keeps a session.\n\npackage agent", false},
		{"server/cmd/schedd/main.go", "// Schedd is a primary.\npackage main", true},
		{"server/cmd/schedd/main.go", "// Command schedd is a primary.\npackage main", true},
		{"server/cmd/schedd/main.go", "package main", false},
	} {
		s, err := parse(test.name, []byte(test.text))
		if err != nil {
			t.Fatal(err)
		}
		if got := hasPackageDoc(s); got != test.want {
			t.Errorf("%s with %q: %v, want %v", test.name, test.text, got, test.want)
		}
	}
}
