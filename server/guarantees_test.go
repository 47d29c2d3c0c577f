package server_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/build/constraint"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// proof is a test, by the package that it is in.
type proof struct{ pkg, name string }

// proofs are the tests that there are. Of each it is known whether it needs the build tag
// e2e.
type proofs map[proof]bool

// allProofs finds them.
func allProofs(t *testing.T) proofs {
	t.Helper()
	all := proofs{}
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test && f.Recv == nil && isTest(f.Name.Name) {
				all[proof{s.pkg, f.Name.Name}] = s.needsTag("e2e")
			}
		}
	}
	return all
}

// needsTag reports whether the file is built only with a tag.
func (s source) needsTag(tag string) bool {
	for _, group := range s.file.Comments {
		for _, c := range group.List {
			if expr, err := constraint.Parse(c.Text); err == nil && c.Pos() < s.file.Package {
				return expr.Eval(func(string) bool { return true }) && !expr.Eval(func(t string) bool { return t != tag })
			}
		}
	}
	return false
}

func (all proofs) packages() map[string]bool {
	pkgs := map[string]bool{}
	for p := range all {
		pkgs[p.pkg] = true
	}
	return pkgs
}

// in returns the packages that have a test of that name.
func (all proofs) in(name string) (pkgs []string) {
	for p := range all {
		if p.name == name {
			pkgs = append(pkgs, p.pkg)
		}
	}
	return pkgs
}

var testName = regexp.MustCompile(`^(Test|Fuzz)[A-Z]\w*$`)

func isTest(name string) bool { return testName.MatchString(name) }

var quoted = regexp.MustCompile("`([^`]+)`")

// cited reads which tests a text names: each belongs to the package that was named last
// before it.
func (all proofs) cited(text string) (found []proof, faults []error) {
	pkg, known := "", all.packages()
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		p := proof{pkg, m[1]}
		switch {
		case known[m[1]]:
			pkg = m[1]
		case !isTest(m[1]):
		case pkg == "":
			faults = append(faults, fmt.Errorf("%s is named without its package", m[1]))
		default:
			if _, there := all[p]; !there {
				faults = append(faults, fmt.Errorf("there is no %s in %s", p.name, p.pkg))
			}
			found = append(found, p)
		}
	}
	return found, faults
}

var (
	mark       = regexp.MustCompile(`\[\^([a-z0-9-]+)\]`)
	definition = regexp.MustCompile(`^\[\^([a-z0-9-]+)\]: `)
	marked     = regexp.MustCompile(`\[\^[a-z0-9-]+\]$`)
)

// unheld finds what is wrong with a page of which each sentence is to be held by tests, from
// a heading on. A mark, which is a footnote, holds what stands before it in its paragraph,
// so each paragraph and each point of a list has to end with one; and each mark is of tests
// that there are.
func (all proofs) unheld(page, from string) (faults []error) {
	_, page, ok := strings.Cut(page, from)
	if !ok {
		return []error{fmt.Errorf("there is no heading %q", from)}
	}
	marks, defined := map[string]bool{}, map[string]bool{}
	for _, b := range blocks(page) {
		if d := definition.FindStringSubmatch(b); d != nil {
			if defined[d[1]] {
				faults = append(faults, fmt.Errorf("[^%s] is defined twice", d[1]))
			}
			defined[d[1]] = true
			found, wrong := all.cited(b)
			if len(found) == 0 {
				wrong = append(wrong, errors.New("it names no test"))
			}
			for _, err := range wrong {
				faults = append(faults, fmt.Errorf("[^%s]: %w", d[1], err))
			}
			continue
		}
		for _, m := range mark.FindAllStringSubmatch(b, -1) {
			marks[m[1]] = true
		}
		if strings.HasPrefix(b, "#") || strings.HasSuffix(b, ":") { // what comes behind says it
			continue
		}
		if !marked.MatchString(b) {
			faults = append(faults, fmt.Errorf("nothing holds %q", b[max(0, len(b)-80):]))
		}
		for _, m := range quoted.FindAllStringSubmatch(b, -1) {
			if isTest(m[1]) {
				faults = append(faults, fmt.Errorf("%s is named in what it holds", m[1]))
			}
		}
	}
	for _, m := range slices.Sorted(maps.Keys(marks)) {
		if !defined[m] {
			faults = append(faults, fmt.Errorf("[^%s] is not defined", m))
		}
	}
	for _, m := range slices.Sorted(maps.Keys(defined)) {
		if !marks[m] {
			faults = append(faults, fmt.Errorf("[^%s] holds nothing", m))
		}
	}
	return faults
}

var begins = regexp.MustCompile(`^(- |\d+\. |\[\^[a-z0-9-]+\]: |#)`)

// blocks returns the paragraphs of a page, the points of its lists, its headings and its
// footnotes, each as one line.
func blocks(page string) (all []string) {
	open := false
	for line := range strings.Lines(page) {
		text := strings.TrimSpace(line)
		switch {
		case text == "":
			open = false
		case !open || begins.MatchString(line):
			all = append(all, text)
			open = !strings.HasPrefix(line, "#")
		default:
			all[len(all)-1] += " " + text
		}
	}
	return all
}

// What is promised, and what is not, is held sentence by sentence, by tests that there are.
func TestWhatIsPromisedIsTested(t *testing.T) {
	all, page := allProofs(t), doc(t, "guarantees.md")
	for _, err := range append(all.unheld(page, "## What is promised"), all.uncommanded(page)...) {
		t.Errorf("docs/guarantees.md: %v", err)
	}
}

var run = regexp.MustCompile(`go test (?:-tags (\w+) )?\./([\w/]+) .*'\^((?:Test|Fuzz)\w+)\$'`)

// uncommanded finds what is wrong with the commands of a page that run a test: they are of
// tests that there are, with the tag that these need, and there is one for each package
// that needs a tag.
func (all proofs) uncommanded(page string) (faults []error) {
	commands := map[string]bool{}
	for _, m := range run.FindAllStringSubmatch(page, -1) {
		p := proof{m[2], m[3]}
		tagged, there := all[p]
		if !there || tagged != (m[1] == "e2e") {
			faults = append(faults, fmt.Errorf("%q runs no test", m[0]))
		}
		commands[p.pkg] = true
	}
	found, _ := all.cited(page)
	for _, p := range found {
		if all[p] && !commands[p.pkg] {
			faults = append(faults, fmt.Errorf("no command runs the tests of %s, such as %s", p.pkg, p.name))
		}
	}
	return faults
}

// unshown finds rows of tables whose last column is to name tests, and that don't, and how
// many rows there are.
func (all proofs) unshown(page, column string) (rows int, faults []error) {
	table := false
	for line := range strings.Lines(page) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		last := strings.TrimSpace(cells[len(cells)-1])
		switch {
		case !strings.HasPrefix(line, "|"):
			table = false
		case last == column:
			table = true
		case table && !strings.HasPrefix(line, "|---"):
			rows++
			found, wrong := all.cited(last)
			if len(found) == 0 {
				wrong = append(wrong, errors.New("it names no test"))
			}
			for _, err := range wrong {
				faults = append(faults, fmt.Errorf("the row %q: %w", strings.Join(cells[:len(cells)-1], " | "), err))
			}
		}
	}
	return rows, faults
}

// What a disk may do, and what happens then, is shown by tests, fault by fault.
func TestEachDiskFaultIsShown(t *testing.T) {
	all, page := allProofs(t), doc(t, "disk-faults.md")
	rows, faults := all.unshown(page, "shown by")
	for _, b := range blocks(page) {
		if _, wrong := all.cited(b); !strings.HasPrefix(b, "|") {
			faults = append(faults, wrong...)
		}
	}
	for _, err := range faults {
		t.Errorf("docs/disk-faults.md: %v", err)
	}
	if rows < 35 {
		t.Errorf("docs/disk-faults.md tells of %d faults, and should of 35", rows)
	}
}

var sayingWhose = regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`(?: of `([a-z0-9/]+)`)?")

// unclear finds tests that a page names and that there are not, or in more than one package
// when it does not say in which.
func (all proofs) unclear(page string) (faults []error) {
	for _, m := range sayingWhose.FindAllStringSubmatch(page, -1) {
		in := all.in(m[1])
		if m[2] != "" {
			in = slices.DeleteFunc(in, func(pkg string) bool { return pkg != m[2] })
		}
		if len(in) != 1 {
			faults = append(faults, fmt.Errorf("%s is in %d packages, want one: %q", m[0], len(in), in))
		}
	}
	return faults
}

// The page on testing names tests that there are.
func TestTestsOfTestingAreThere(t *testing.T) {
	page := doc(t, "testing.md")
	for _, err := range allProofs(t).unclear(page) {
		t.Errorf("docs/testing.md: %v", err)
	}
	if n := len(sayingWhose.FindAllString(page, -1)); n < 50 {
		t.Errorf("docs/testing.md names %d tests, and should name 50", n)
	}
}

var (
	mutant = regexp.MustCompile(`(?m)^(?:mutant|short) ([a-z-]+) `)
	row    = regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|")
)

// unlisted compares the mutants of a script with the rows of a page that are about one.
func unlisted(script, page string) (faults []error) {
	tried, told := map[string]int{}, map[string]int{}
	for _, m := range mutant.FindAllStringSubmatch(script, -1) {
		tried[m[1]]++
	}
	for _, m := range row.FindAllStringSubmatch(page, -1) {
		told[m[1]]++
	}
	for name, n := range tried {
		if n > 1 || told[name] != 1 {
			faults = append(faults, fmt.Errorf("the mutant %s is tried %d times and told of %d times", name, n, told[name]))
		}
	}
	for name := range told {
		if tried[name] == 0 {
			faults = append(faults, fmt.Errorf("the mutant %s is told of and not tried", name))
		}
	}
	return faults
}

// docs/testing.md tells of each mutant that is tried, and of no other.
func TestMutantsAreToldOf(t *testing.T) {
	script, err := os.ReadFile(filepath.Join("..", ".ci", "mutants"))
	if err != nil {
		t.Fatal(err)
	}
	_, page, ok := strings.Cut(doc(t, "testing.md"), "## Mutants\n")
	if n := len(mutant.FindAllSubmatch(script, -1)); !ok || n < 100 {
		t.Errorf("there are %d mutants, want more than 100, and docs/testing.md has a part on them: %v", n, ok)
	}
	for _, err := range unlisted(string(script), page) {
		t.Error(err)
	}
}

func doc(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The checks of what is said to be tested can fail: each page here has one thing wrong.
func TestProofsBite(t *testing.T) {
	all := proofs{{"server/plan", "TestA"}: false, {"server/plan", "TestB"}: false, {"agent", "TestB"}: false, {"server/systest/e2e", "TestC"}: true, {"agent", "FuzzD"}: false}
	const head, held = "## Promised\n", "[^a]: `server/plan`: `TestA`; `agent`: `TestB`,\n    `FuzzD`.\n"
	for _, test := range []struct{ page, want string }{
		{head + "It holds.[^a] It does.[^a]\n\n- first[^a]\n- second,\n  in two lines[^a]\n\nThe steps are:\n\n1. one[^a]\n\n" + held, ""},
		{"It holds.\n\n" + head + "It holds.[^a]\n\n" + held, ""},
		{"## Else\nIt holds.[^a]\n\n" + held, `no heading "## Promised"`},
		{head + "It holds.[^a] It does.\n\n" + held, "nothing holds"},
		{head + "It holds.[^a]\n\n- first\n- second[^a]\n\n" + held, "nothing holds"},
		{head + "It holds.[^a]\n\n1. first\n2. second[^a]\n\n" + held, "nothing holds"},
		{head + "It holds.[^a] `TestA` says so.[^a]\n\n" + held, "TestA is named in what it holds"},
		{head + "It holds.[^a]\n\n[^a]: by nature.\n", "it names no test"},
		{head + "It holds.[^a]\n\n[^a]: `TestA`.\n", "TestA is named without its package"},
		{head + "It holds.[^a]\n\n[^a]: `server/pan`: `TestA`.\n", "TestA is named without its package"},
		{head + "It holds.[^a]\n\n[^a]: `agent`: `TestA`.\n", "there is no TestA in agent"},
		{head + "It holds.[^a]\n\n" + held + held, "[^a] is defined twice"},
		{head + "It holds.[^b]\n\n" + held + "[^b]: `agent`: `TestB`.\n", "[^a] holds nothing"},
		{head + "It holds.[^a] It does.[^b]\n\n" + held, "[^b] is not defined"},
	} {
		bites(t, test.page, test.want, all.unheld(test.page, "## Promised"))
	}

	const script = "mutant skip-it a.go \\\n\t'a' 'b' \\\n\t./a 'TestA'\nshort do-it-twice a.go \\\n"
	for _, test := range []struct{ page, want string }{
		{"| `skip-it` | it is skipped |\n| `do-it-twice` | it is done twice |\n", ""},
		{"| `skip-it` | it is skipped |\n", "do-it-twice is tried 1 times and told of 0 times"},
		{"| `skip-it` | it is skipped |\n| `do-it-twice` | |\n| `skip-it` | |\n", "skip-it is tried 1 times and told of 2 times"},
		{"| `skip-it` | it is skipped |\n| `do-it-twice` | |\n| `forget` | |\n", "forget is told of and not tried"},
	} {
		bites(t, test.page, test.want, unlisted(script, test.page))
	}

	const e2e = "[^a]: `server/systest/e2e`: `TestC`.\n"
	for _, test := range []struct{ page, want string }{
		{"go test ./server/plan -run '^TestA$'\n" + held, ""},
		{"go test -tags e2e ./server/systest/e2e -run '^TestC$'\n" + e2e, ""},
		{"go test ./server/plan -run '^TestC$'\n" + held, "runs no test"},
		{"go test ./server/systest/e2e -run '^TestC$'\n" + e2e, "runs no test"},
		{"go test -tags e2e ./server/plan -run '^TestA$'\n" + held, "runs no test"},
		{e2e, "no command runs the tests of server/systest/e2e, such as TestC"},
	} {
		bites(t, test.page, test.want, all.uncommanded(test.page))
	}

	const table = "| fault | what | shown by |\n|---|---|---|\n"
	for _, test := range []struct{ page, want string }{
		{table + "| torn | cut | `agent`: `TestB`, the random stories |\n\n| a | b |\n| c | |\n", ""},
		{table + "| torn | cut | the random stories |\n", "it names no test"},
		{table + "| torn | cut | |\n", "it names no test"},
		{table + "| torn | cut | `TestB` |\n", "TestB is named without its package"},
		{table + "| torn | cut | `agent`: `TestA` |\n", "there is no TestA in agent"},
	} {
		rows, faults := all.unshown(test.page, "shown by")
		if bites(t, test.page, test.want, faults); rows != 1 {
			t.Errorf("%q has %d rows, want 1", test.page, rows)
		}
	}

	for _, test := range []struct{ page, want string }{
		{"`TestA`, `TestB` of `agent`", ""},
		{"`TestB`", "in 2 packages"},
		{"`TestE`", "in 0 packages"},
		{"`TestA` of `agent`", "in 0 packages"},
	} {
		bites(t, test.page, test.want, all.unclear(test.page))
	}
}

// bites checks that a page has one fault, which says what is wanted; none when that is empty.
func bites(t *testing.T, page, want string, faults []error) {
	t.Helper()
	if text := fmt.Sprint(faults); (len(faults) > 0) != (want != "") || !strings.Contains(text, want) {
		t.Errorf("of %q it is said: %s, want %q", page, text, want)
	}
}
