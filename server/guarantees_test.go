package server_test

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// proofs are the pages that name tests for what they say, and how many they name
// at least.
var proofs = map[string]int{"guarantees.md": 55, "testing.md": 12, "disk-faults.md": 40}

var testName = regexp.MustCompile("`((?:Test|Fuzz)[A-Z][A-Za-z0-9]*)`")

// What is promised is held by tests that there are.
func TestWhatIsPromisedIsTested(t *testing.T) {
	there := map[string]bool{}
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test && f.Recv == nil {
				there[f.Name.Name] = true
			}
		}
	}
	for page, least := range proofs {
		text, err := os.ReadFile(filepath.Join("..", "docs", page))
		if err != nil {
			t.Fatal(err)
		}
		named := map[string]bool{}
		for _, m := range testName.FindAllSubmatch(text, -1) {
			named[string(m[1])] = true
		}
		for name := range named {
			if !there[name] {
				t.Errorf("docs/%s names %s, and there is no such test", page, name)
			}
		}
		if len(named) < least {
			t.Errorf("docs/%s names %d tests, and should name %d", page, len(named), least)
		}
	}
}
