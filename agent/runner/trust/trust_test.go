//go:build unix

package trust_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/schedd/schedd/agent/runner/trust"
)

// What others can change on the way to a name is found wherever it is, and nothing else.
func TestPath(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(top, name) }
	for name, mode := range map[string]os.FileMode{"own": 0o755, "own/deep": 0o700, "open": 0o777, "open/deep": 0o755, "group": 0o770, "shared": 0o777 | os.ModeSticky, "shared/deep": 0o755} {
		if err := errors.Join(os.MkdirAll(in(name), 0o700), os.Chmod(in(name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"to-own": in("own"), "to-open": "open", "own/up": "../open", "loop": "loop", "own/good": "deep/../deep",
	} {
		if err := os.Symlink(target, in(link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"own/deep":               "",
		"own/none/yet":           "",
		"to-own/deep":            "",
		"own/good":               "",
		"shared/deep":            "",
		"open":                   "others may write to " + in("open"),
		"open/deep":              "others may write to " + in("open"),
		"group":                  "others may write to",
		"to-open/deep":           "others may write to " + in("open"),
		"own/up/deep":            "others may write to " + in("open"),
		"own/deep/../../to-open": "others may write to " + in("open"),
		"loop":                   syscall.ELOOP.Error(),
	} {
		err := trust.Path(top + "/" + name)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if err := trust.Path("own/deep"); err == nil {
		t.Error("a name that begins anywhere is trusted")
	}
}

// What belongs to another user is his to change: a directory, what is in it, and a link.
func TestPathOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to have files of other users")
	}
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	his, deep, link := filepath.Join(top, "his"), filepath.Join(top, "his", "deep"), filepath.Join(top, "link")
	err = errors.Join(os.MkdirAll(deep, 0o755), os.Symlink("/", link), os.Chown(his, 54321, 54321), os.Lchown(link, 54321, 54321))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{his, deep, filepath.Join(his, "none"), link, filepath.Join(link, "etc")} {
		if err := trust.Path(name); err == nil || !strings.Contains(err.Error(), "belongs to user number 54321") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
