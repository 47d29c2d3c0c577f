package settings_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/schedd/schedd/proto/settings"
)

const prefix = "PLOUGH"

// config has a setting of each kind.
type config struct {
	APIAddr  string
	Slots    int
	Grace    time.Duration
	Insecure bool
	Labels   string
	Token    settings.Secret
	Even     int
}

// flags declares a program's settings the way our mains do.
func flags(c *config) *flag.FlagSet {
	fs := flag.NewFlagSet("plough", flag.ExitOnError) // Parse has to change that
	fs.String("config", "", "YAML `FILE` with settings")
	fs.StringVar(&c.APIAddr, "api-addr", "127.0.0.1:1", "`ADDR` to listen on")
	fs.IntVar(&c.Slots, "slots", 4, "runs at the same time")
	fs.DurationVar(&c.Grace, "grace", 10*time.Second, "time to stop")
	fs.BoolVar(&c.Insecure, "insecure", false, "no TLS")
	fs.StringVar(&c.Labels, "labels", "", "comma-separated `LABELS`")
	fs.Var(&c.Token, "join-token", "`TOKEN` to enrol with")
	fs.Func("even", "an even number", func(s string) error {
		if _, err := fmt.Sscan(s, &c.Even); err != nil || c.Even%2 != 0 {
			return errors.New("want an even number")
		}
		return nil
	})
	return fs
}

// setup is what a program is started with.
type setup struct {
	args []string
	env  map[string]string
	file string // in its directory as plough.yaml, and named by --config if not empty
}

// parsed starts the program in a directory of its own.
func parsed(t *testing.T, s setup) (config, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, value := range s.env {
		t.Setenv(name, value)
	}
	if s.file != "" {
		if err := os.WriteFile("plough.yaml", []byte(s.file), 0o600); err != nil {
			t.Fatal(err)
		}
		s.args = append([]string{"--config", "plough.yaml"}, s.args...)
	}
	var c config
	err := settings.Parse(flags(&c), s.args, prefix)
	return c, err
}

func TestDefaults(t *testing.T) {
	var c config
	if err := settings.Parse(flags(&c), nil, prefix); err != nil {
		t.Fatal(err)
	}
	want := config{APIAddr: "127.0.0.1:1", Slots: 4, Grace: 10 * time.Second}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestPrecedence(t *testing.T) {
	flag := []string{"--api-addr", "flag"}
	env := map[string]string{"PLOUGH_API_ADDR": "env"}
	const file = "api_addr: file\n"
	for _, test := range []struct {
		name string
		setup
		want string
	}{
		{"nothing is given", setup{}, "127.0.0.1:1"},
		{"only the file", setup{nil, nil, file}, "file"},
		{"only the environment", setup{nil, env, ""}, "env"},
		{"only the flag", setup{flag, nil, ""}, "flag"},
		{"environment over file", setup{nil, env, file}, "env"},
		{"flag over file", setup{flag, nil, file}, "flag"},
		{"flag over environment", setup{flag, env, ""}, "flag"},
		{"flag over all", setup{flag, env, file}, "flag"},
		{"a flag with the default's value wins as well", setup{[]string{"--api-addr=127.0.0.1:1"}, env, file}, "127.0.0.1:1"},
		{"an empty flag wins as well", setup{[]string{"--api-addr="}, env, file}, ""},
		{"an empty variable is none", setup{nil, map[string]string{"PLOUGH_API_ADDR": ""}, file}, "file"},
		{"an empty value in the file is a value", setup{nil, nil, `api_addr: ""`}, ""},
		{"the last of two flags", setup{[]string{"--api-addr=a", "-api-addr", "b"}, nil, ""}, "b"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := parsed(t, test.setup)
			if err != nil {
				t.Fatal(err)
			}
			if c.APIAddr != test.want {
				t.Errorf("api-addr is %q, want %q", c.APIAddr, test.want)
			}
		})
	}
}

// The environment names the file, when the flag does not.
func TestConfigFromEnvironment(t *testing.T) {
	name := filepath.Join(t.TempDir(), "some.yaml")
	if err := os.WriteFile(name, []byte("slots: 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := parsed(t, setup{env: map[string]string{"PLOUGH_CONFIG": name}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Slots != 7 {
		t.Errorf("slots are %d, want the file's 7", c.Slots)
	}
}

// All that a file may hold, at once.
func TestFile(t *testing.T) {
	for _, test := range []struct {
		name, file string
		want       config
	}{
		{"each kind of value", `
# a comment
api_addr: "[::1]:7421"   # another
slots: 8
grace: 1m30s
insecure: true
labels: [zone=eu, gpu]
join_token: s3cret
even: 6
`, config{"[::1]:7421", 8, 90 * time.Second, true, "zone=eu,gpu", "s3cret", 6}},
		{"a list over lines", "labels:\n  - a\n  - b=1\n", config{Labels: "a,b=1"}},
		{"an empty list", "labels: []\n", config{}},
		{"aliases", "api_addr: &x here\nlabels: [*x, *x]\njoin_token: *x\n", config{APIAddr: "here", Labels: "here,here", Token: "here"}},
		{"a folded text", "labels: >-\n  a\n  b\n", config{Labels: "a b"}},
		{"a number for a text", "labels: 0123\n", config{Labels: "0123"}},
		{"a date for a text", "labels: 2026-01-01\n", config{Labels: "2026-01-01"}},
		{"nothing", "\n", config{}},
		{"only comments", "# slots: 8\n", config{}},
		{"only a document's beginning", "---\n", config{}},
		{"json", `{"slots": 3}`, config{Slots: 3}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := parsed(t, setup{file: test.file})
			if err != nil {
				t.Fatal(err)
			}
			want := withDefaults(test.want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	env := func(name, value string) setup { return setup{env: map[string]string{name: value}} }
	args := func(a ...string) setup { return setup{args: a} }
	file := func(text string) setup { return setup{file: text} }
	for _, test := range []struct {
		name string
		setup
		want string
	}{
		{"misspelt flag", args("--api-adr", "x"), `unknown flag "--api-adr", did you mean --api-addr?; --help lists them all`},
		{"key as a flag", args("--api_addr=x"), `unknown flag "--api_addr", did you mean --api-addr?; --help lists them all`},
		{"strange flag", args("--colour"), `unknown flag "--colour"; --help lists them all`},
		{"flag without its value", args("--slots"), `--slots needs a value`},
		{"text for a number", args("--slots", "many"), `--slots: "many" does not fit: want a whole number`},
		{"too large a number", args("--slots", "1e9"), `--slots: "1e9" does not fit: want a whole number`},
		{"out of range", args("--slots=99999999999999999999"), `--slots: "99999999999999999999" does not fit: value out of range`},
		{"number without a unit", args("--grace=90"), `--grace: "90" does not fit: want a duration such as "90s" or "1h30m"`},
		{"text for a switch", args("--insecure=yes"), `--insecure: "yes" does not fit: want true or false`},
		{"a flag's own words", args("--even", "3"), `--even: "3" does not fit: want an even number`},
		{"a value with a line break", args("--slots=a\nb"), `--slots: "a\nb" does not fit: want a whole number`},
		{"leftover", args("--slots=1", "more"), `unexpected argument "more": every setting is a flag; --help lists them all`},
		{"switch with its value apart", args("--insecure", "false"), `unexpected argument "false": a flag that is on or off takes its value after an equals sign, as in --flag=false`},

		{"text for a number in the environment", env("PLOUGH_SLOTS", "many"), `environment variable PLOUGH_SLOTS: "many" does not fit: want a whole number`},
		{"misspelt variable", env("PLOUGH_API_ADR", "x"), `environment variable PLOUGH_API_ADR is not a setting, did you mean PLOUGH_API_ADDR?; unset it, or correct its name`},
		{"strange variable", env("PLOUGH_COLOUR", "x"), `environment variable PLOUGH_COLOUR is not a setting; unset it, or correct its name`},

		{"no file", args("--config", "none.yaml"), `read the configuration file: open none.yaml: no such file or directory`},
		{"a directory", args("--config", "."), `read the configuration file .: read .: is a directory`},
		{"misspelt key", file("slots: 1\napi_adr: x\n"), `plough.yaml:2: unknown key "api_adr", did you mean api_addr?`},
		{"flag as a key", file("api-addr: x\n"), `plough.yaml:1: unknown key "api-addr", did you mean api_addr?`},
		{"strange key", file("colour: x\n"), `plough.yaml:1: unknown key "colour"`},
		{"a file that names a file", file("config: x\n"), `plough.yaml:1: unknown key "config"`},
		{"merge key", file("<<: {slots: 1}\n"), `plough.yaml:1: unknown key "<<"`},
		{"a mapping for a key", file("? {a: b}\n: c\n"), `plough.yaml:1: unknown key ""`},
		{"text for a number in the file", file("\nslots: many\n"), `plough.yaml:2: slots: "many" does not fit: want a whole number`},
		{"yes is a text", file("insecure: yes\n"), `plough.yaml:1: insecure: "yes" does not fit: want true or false`},
		{"a list for a number", file("slots: [1, 2]\n"), `plough.yaml:1: slots: "1,2" does not fit: want a whole number`},
		{"own words in the file", file("even: 3\n"), `plough.yaml:1: even: "3" does not fit: want an even number`},
		{"no value", file("slots: 1\nlabels:\n"), `plough.yaml:2: labels: no value; leave the key out for the default, or write "" for an empty one`},
		{"null", file("slots: null\n"), `plough.yaml:1: slots: no value; leave the key out for the default, or write "" for an empty one`},
		{"no value in a list", file("labels: [a, ~]\n"), `plough.yaml:1: labels: item 2 of the list: no value; leave the key out for the default, or write "" for an empty one`},
		{"mapping", file("labels:\n  zone: eu\n"), `plough.yaml:2: labels: want a value, not a mapping`},
		{"list in a list", file("labels:\n- a\n- [b]\n"), `plough.yaml:2: labels: item 2 of the list: want a value, not a list or a mapping`},
		{"comma in a list", file("labels: ['a in (b,c)']\n"), `plough.yaml:1: labels: item 1 of the list: has a comma, which would make it two`},
		{"alias to itself", file("labels: &a [*a]\n"), `plough.yaml:1: labels: item 1 of the list: want a value, not a list or a mapping`},
		{"given twice", file("slots: 1\n\nslots: 1\n"), `plough.yaml:3: "slots" was given in line 1 already`},
		{"two documents", file("slots: 1\n---\nslots: 2\n"), `plough.yaml:2: a second document begins; want one`},
		{"a list of settings", file("- slots: 1\n"), `plough.yaml:1: want lines of the form "key: value"`},
		{"a text", file("slots 1\n"), `plough.yaml:1: want lines of the form "key: value"`},
		{"no YAML", file("slots: 1\n\tgrace: 1s\n"), `plough.yaml: yaml: line 2: found a tab character that violates indentation`},
		{"another kind of file", file(strings.Repeat("# war and peace\n", 1<<17)), `plough.yaml is larger than 1048576 bytes: is this the configuration file?`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := parsed(t, test.setup)
			usage, ok := errors.AsType[*settings.UsageError](err)
			if !ok {
				t.Fatalf("got %T %v, want a UsageError", err, err)
			}
			if diff := cmp.Diff(test.want, usage.Error()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// What is wrong around a secret is said without it.
func TestSecretsAreNotShown(t *testing.T) {
	const secret = "hunter2"
	for name, s := range map[string]setup{
		"misspelt flag":     {args: []string{"--join-tokn=" + secret}},
		"misspelt variable": {env: map[string]string{"PLOUGH_JOIN_TOKN": secret}},
		"misspelt key":      {file: "join_tokn: " + secret},
		"like an alias":     {file: "join_token: *" + secret},
		"like a tag":        {file: "join_token: !" + secret + " x"},
		"in a mapping":      {file: "join_token: {value: " + secret + "}"},
		"with a comma":      {file: "join_token: ['a," + secret + "']"},
		"broken quotes":     {file: "join_token: '" + secret + "\nslots: 1"},
		"broken brackets":   {file: "join_token: {" + secret + "\nslots: 1"},
	} {
		_, err := parsed(t, s)
		if err == nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error shows it: %v", name, err)
		}
	}

	c := config{Token: secret}
	for _, shown := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", &c), fmt.Sprintf("%#v", c), fmt.Sprintf("%q", c.Token)} {
		if strings.Contains(shown, secret) {
			t.Errorf("printed: %s", shown)
		}
	}
}

// One environment serves all commands of a program, the jobs that it started,
// and whatever Kubernetes thinks a pod should know about a service of that name.
func TestForeignVariables(t *testing.T) {
	for _, name := range []string{
		"SCHEDD_RUN_ID", "SCHEDD_ATTEMPT", "SCHEDD_FENCE", "SCHEDD_JOB", "SCHEDD_NAMESPACE", "SCHEDD_TRIGGER",
		"SCHEDD_SCHEDULED_AT", "SCHEDD_WORKER",
		"SCHEDD_SERVICE_HOST", "SCHEDD_SERVICE_PORT", "SCHEDD_SERVICE_PORT_GRPC_API",
		"SCHEDD_PORT", "SCHEDD_PORT_7421_TCP", "SCHEDD_PORT_7421_TCP_PROTO", "SCHEDD_PORT_7421_TCP_PORT", "SCHEDD_PORT_7421_TCP_ADDR",
		"SCHEDD_WEB_SERVICE_HOST", "SCHEDD_WEB_PORT_7480_TCP_ADDR",
		"SCHEDDER_ON", "XSCHEDD_ON", "SCHEDD",
		"SCHEDD_ONLY_HERE", "SCHEDD_ONLY_THERE",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "7")
			here := flag.NewFlagSet("here", flag.ContinueOnError)
			got := here.Int("only-here", 0, "")
			there := flag.NewFlagSet("there", flag.ContinueOnError)
			untouched := there.Int("only-there", 0, "")
			if err := settings.Parse(here, nil, "SCHEDD", there); err != nil {
				t.Fatal(err)
			}
			if want := map[bool]int{true: 7}[name == "SCHEDD_ONLY_HERE"]; *got != want {
				t.Errorf("only-here is %d, want %d", *got, want)
			}
			if *untouched != 0 {
				t.Errorf("only-there was set, in the flags of another command")
			}
		})
	}
}

func TestErrorf(t *testing.T) {
	err := settings.Errorf("--join: %w", os.ErrInvalid)
	if _, ok := errors.AsType[*settings.UsageError](err); !ok {
		t.Errorf("%T is not a UsageError", err)
	}
	if !errors.Is(err, os.ErrInvalid) {
		t.Errorf("%v does not wrap what it was made of", err)
	}
}

func withDefaults(c config) config {
	if c.APIAddr == "" {
		c.APIAddr = "127.0.0.1:1"
	}
	if c.Slots == 0 {
		c.Slots = 4
	}
	if c.Grace == 0 {
		c.Grace = 10 * time.Second
	}
	return c
}
