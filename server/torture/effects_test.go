package torture

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/schedd/schedd/server/torture/verdict"
)

// The directory is anybody's. A pipe does not stop the torture, a link shows nobody a
// file that is not his, and a name of no worker is not read: each is told as not seen,
// and none as a broken promise. What a worker wrote is read all the same.
func TestReadEffects(t *testing.T) {
	const secret, written = "root:x:0:0:the secret", "begin r1 1 7 2026-03-29T01:00:00Z tick 2026-03-29T01:00:01Z\n"
	tt := &torture{Config: Config{Effects: t.TempDir(), Servers: []string{serve(t, "c").String()}}, id: "torture-1"}
	if err := tt.makeEffects(); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "shadow")
	path := func(name string) string { return filepath.Join(tt.effectsDir(), name) }
	write := func(name, text string) error { return os.WriteFile(name, []byte(text), 0o600) }
	for _, err := range []error{
		write(outside, secret), write(path("w-plain"), written), write(path("w-nobody"), secret), write(filepath.Join(tt.Effects, "other"), secret),
		os.Symlink(outside, path("w-link")), syscall.Mkfifo(path("w-pipe"), 0o600),
		os.Link(filepath.Join(tt.Effects, "other"), path("w-hard")), os.Mkdir(path("w-dir"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var run verdict.Run
	for _, id := range []string{"w-plain", "w-link", "w-pipe", "w-hard", "w-dir", "w-quiet"} {
		run.Attempts = append(run.Attempts, verdict.Attempt{Worker: id})
	}
	rec := verdict.Record{EffectsOf: map[string]bool{}, Views: []verdict.View{{Runs: []verdict.Run{run}}}}
	g, err := dial(tt.Servers)
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	tt.group = g
	tt.readEffects(t.Context(), &rec)
	if len(rec.Effects) != 1 || rec.Effects[0].Worker != "w-plain" || len(rec.EffectsOf) != 1 || !rec.EffectsOf["w-plain"] {
		t.Errorf("read is %+v, of %v", rec.Effects, rec.EffectsOf)
	}
	all := strings.Join(rec.Unseen, "\n")
	for _, name := range []string{"w-link", "w-pipe", "w-hard", "w-dir", "w-nobody"} {
		if !strings.Contains(all, name) {
			t.Errorf("%s is not told as not seen:\n%s", name, all)
		}
	}
	if len(rec.Unreadable) > 0 || strings.Contains(all, "secret") {
		t.Errorf("it tells what is not its to read: %q\n%s", rec.Unreadable, all)
	}
}

// A file that somebody fills without end is not read without end.
func TestReadPlainIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w")
	if err := os.WriteFile(path, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := readPlain(path, 5); err != nil || string(text) != "12345" {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := readPlain(path, 4); err == nil {
		t.Errorf("%q", text)
	}
}
