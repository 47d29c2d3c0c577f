package settings

import (
	"flag"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// FuzzFile reads what anybody may have written: it never panics, sets nothing
// but known settings, each once, and complains in one line.
func FuzzFile(f *testing.F) {
	for _, seed := range []string{
		"", "slots: 3\nlabels: [a, b]\n", "slots: 1\nslots: 2\n", "labels: &a [*a]\n", "a: &a b\nlabels: *a\n",
		"<<: {slots: 1}\n", "? {a: b}\n: c\n", "---\n---\n", "labels: ~\n", "labels: !!binary aGk=\n", "'\xff': 1", "\ufeffslots: 1",
		"labels: >-\n  a\n  b\n", "labels: *x\n", "- 1\n", "{slots: 1, labels: 'x'}", "slots: 0x_1\n", "%YAML 3.0\n---\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		fs.Int("slots", 0, "")
		fs.String("labels", "", "")
		fs.String(configFlag, "", "")
		times := map[string]int{}
		err := file{"f.yaml", fs, func(name, value string) error {
			times[name]++
			return fs.Set(name, value)
		}}.parse(strings.NewReader(text))
		for name, n := range times {
			if fs.Lookup(name) == nil || name == configFlag || n > 1 {
				t.Errorf("--%s was set %d times", name, n)
			}
		}
		if err == nil {
			return
		}
		if strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("an error of two lines: %q", err)
		}
		if !strings.HasPrefix(err.Error(), "f.yaml") {
			t.Errorf("%q does not begin with the file", err)
		}
	})
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"same", "same", 0},
		{"", "abc", 3},
		{"adr", "addr", 1},
		{"slost", "slots", 2},
		{"kitten", "sitting", 3},
	} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("from %q to %q: %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

// A distance is one: nothing is nearer than itself, there is as far as back, and
// no detour is shorter.
func TestDistanceIsAMetric(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringOfN(rapid.RuneFrom([]rune("ab_")), 0, 8, -1)
		a, b, c := word.Draw(t, "a"), word.Draw(t, "b"), word.Draw(t, "c")
		if (distance(a, b) == 0) != (a == b) {
			t.Fatalf("distance(%q, %q) = %d", a, b, distance(a, b))
		}
		if distance(a, b) != distance(b, a) {
			t.Fatalf("%q to %q is not as far as back", a, b)
		}
		if distance(a, c) > distance(a, b)+distance(b, c) {
			t.Fatalf("from %q to %q is shorter over %q", a, c, b)
		}
	})
}

// The nearest name is suggested, and none at all when none is near.
func TestDidYouMean(t *testing.T) {
	known := []string{"api_addr", "web_addr", "slots", "data_dir"}
	for _, test := range []struct{ name, want string }{
		{"api_adr", ", did you mean api_addr?"},
		{"API-ADDR", ", did you mean api_addr?"},
		{"wep_addr", ", did you mean web_addr?"},
		{"slot", ", did you mean slots?"},
		{"colour", ""},
		{"", ""},
	} {
		if got := didYouMean("", test.name, known); got != test.want {
			t.Errorf("%q: %q, want %q", test.name, got, test.want)
		}
	}
}
