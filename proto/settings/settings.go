// Package settings is how both programs are configured: each setting is a flag,
// an environment variable and a key of a YAML file, under one name.
//
// A program declares its settings once, as a standard [flag.FlagSet]; [Parse]
// fills it. --api-addr, SCHEDD_API_ADDR and api_addr are the same setting, and
// the first of these that is given wins; else the default of the flag holds.
//
// A misspelt setting is an error, wherever it stands: a primary that starts with
// a default where the operator wrote a value would be found out much too late.
// Errors fit on one line, say what to change and where, and never show a secret
// (see [Secret]).
//
// It never prints by itself, never exits, and knows no setting by name but
// "config".
package settings

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/peterbourgon/ff/v3"
)

// ErrHelp is returned when --help was asked for: print [Usage] and exit with 0.
var ErrHelp = flag.ErrHelp

// UsageError says that a program was called in a way that cannot work. It is
// one line for people. A main prints it and exits with 2.
type UsageError struct{ err error }

// Errorf returns a [*UsageError], for what [Parse] cannot know: two settings
// that exclude each other, an unknown command. It takes %w like [fmt.Errorf].
func Errorf(format string, args ...any) error {
	return &UsageError{fmt.Errorf(format, args...)}
}

// Error returns the line to print.
func (e *UsageError) Error() string { return e.err.Error() }

// Unwrap returns what the caller of [Errorf] wrapped.
func (e *UsageError) Unwrap() error { return errors.Unwrap(e.err) }

// configFlag is the one flag with a meaning of its own: the file to read.
const configFlag = "config"

// Parse sets the flags of fs from the arguments, then from environment variables
// that begin with envPrefix and an underscore, then from the file that the flag
// "config" names, if fs has one. An empty variable counts as none.
//
// It returns [ErrHelp], or a [*UsageError] for the first thing that is wrong: an
// unknown flag, variable or key, a value that does not fit, an argument that
// belongs to no flag, a file that cannot be read.
//
// A variable with the prefix that names no flag is an error too, but for those
// that somebody else sets: see foreign. The flag sets of the program's other
// commands are given as others, since one environment serves all commands.
//
// Parse makes fs silent and keeps it from exiting: both are the caller's part.
func Parse(fs *flag.FlagSet, args []string, envPrefix string, others ...*flag.FlagSet) error {
	fs.Init(fs.Name(), flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}

	err := ff.Parse(fs, args,
		ff.WithEnvVarPrefix(envPrefix),
		ff.WithConfigFileFlag(configFlag),
		ff.WithConfigFileParser(func(r io.Reader, set func(name, value string) error) error {
			return file{fs.Lookup(configFlag).Value.String(), fs, set}.parse(r)
		}),
	)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return ErrHelp
	case err != nil:
		return inOurWords(fs, err)
	case fs.NArg() > 0:
		return leftover(fs.Args())
	}
	return checkEnvironment(os.Environ(), envPrefix, append([]*flag.FlagSet{fs}, others...))
}

// What package flag and package ff say, which they say in text alone.
var (
	undefinedFlag = regexp.MustCompile(`(?s)^flag provided but not defined: -(.*)$`)
	missingValue  = regexp.MustCompile(`^flag needs an argument: -(.*)$`)
	badValue      = regexp.MustCompile(`(?s)^invalid (?:boolean )?value (".*") for (?:flag )?-([^ :]+): (.*)$`)
	badVariable   = regexp.MustCompile(`(?s)^error setting flag "([^"]+)" from environment variable "([^"]+)": (.*)$`)
)

// inOurWords returns err as a [*UsageError] that names the setting as its user
// wrote it, and what would be right. What it does not know it passes on.
func inOurWords(fs *flag.FlagSet, err error) error {
	if usage, ok := errors.AsType[*UsageError](err); ok {
		return usage
	}
	inner := errors.Unwrap(err) // without "error parsing ..."
	if _, isFile := errors.AsType[*os.PathError](err); isFile || inner == nil {
		return Errorf("read the configuration file: %w", err)
	}
	text := inner.Error()
	if m := undefinedFlag.FindStringSubmatch(text); m != nil {
		return Errorf("unknown flag %q%s; --help lists them all", "--"+m[1], didYouMean("--", m[1], flagNames(fs)))
	}
	if m := missingValue.FindStringSubmatch(text); m != nil {
		return Errorf("--%s needs a value", m[1])
	}
	if m := badValue.FindStringSubmatch(text); m != nil {
		return Errorf("--%s: %s", m[2], mismatch(fs.Lookup(m[2]), m[1], m[3]))
	}
	if m := badVariable.FindStringSubmatch(text); m != nil {
		value := fmt.Sprintf("%q", os.Getenv(m[2]))
		return Errorf("environment variable %s: %s", m[2], mismatch(fs.Lookup(m[1]), value, m[3]))
	}
	return &UsageError{err}
}

// mismatch says that the quoted value does not suit f, and what would.
func mismatch(f *flag.Flag, quoted, reason string) string {
	// All that package flag says about its own types, in two words.
	if reason == "parse error" {
		reason = "want " + kind(f)
	}
	return fmt.Sprintf("%s does not fit: %s", quoted, reason)
}

// kind describes the values that a flag takes.
func kind(f *flag.Flag) string {
	if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
		return "true or false"
	}
	switch name, _ := flag.UnquoteUsage(&flag.Flag{Value: f.Value}); name {
	case "int", "uint":
		return "a whole number"
	case "float":
		return "a number"
	case "duration":
		return `a duration such as "90s" or "1h30m"`
	default:
		return "another kind of value"
	}
}

// leftover explains arguments that no flag took.
func leftover(args []string) error {
	// "--insecure false" is what everybody writes once.
	if args[0] == "true" || args[0] == "false" {
		return Errorf("unexpected argument %q: a flag that is on or off takes its value after an equals sign, as in --flag=%[1]s", args[0])
	}
	return Errorf("unexpected argument %q: every setting is a flag; --help lists them all", args[0])
}

// foreign matches variables, without their prefix, that other programs set and
// that happen to look like ours: what a job's process is told about its run, and
// what Kubernetes tells each pod about a service whose name begins like ours.
var foreign = regexp.MustCompile(`^(?:` +
	`RUN_ID|ATTEMPT|FENCE|JOB|NAMESPACE|TRIGGER|SCHEDULED_AT|WORKER` +
	`|(?:.+_)?SERVICE_(?:HOST|PORT(?:_.+)?)` +
	`|(?:.+_)?PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?` +
	`)$`)

// checkEnvironment finds a variable that begins like ours and sets nothing. Its
// value stays out of the error: who knows what was meant.
func checkEnvironment(environ []string, prefix string, sets []*flag.FlagSet) error {
	var known []string // without the prefix, so that it does not count as alike
	for _, fs := range sets {
		for _, name := range flagNames(fs) {
			known = append(known, strings.ToUpper(key(name)))
		}
	}
	slices.Sort(environ) // so that the error is the same each time
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		rest, ours := strings.CutPrefix(name, prefix+"_")
		if !ours || slices.Contains(known, rest) || foreign.MatchString(rest) {
			continue
		}
		return Errorf("environment variable %s is not a setting%s; unset it, or correct its name", name, didYouMean(prefix+"_", rest, known))
	}
	return nil
}

// variable returns the environment variable of a flag.
func variable(prefix, flagName string) string {
	return prefix + "_" + strings.ToUpper(key(flagName))
}

// key returns the key in the file of a flag.
func key(flagName string) string { return strings.ReplaceAll(flagName, "-", "_") }

func flagNames(fs *flag.FlagSet) []string {
	var names []string
	fs.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	return names
}

// Secret is a setting that is never shown: not in an error, nor in --help, nor
// when the struct around it is printed or logged. Declare it with
// [flag.FlagSet.Var]; convert it to a string to use it.
type Secret string

// Set takes any value.
func (s *Secret) Set(value string) error {
	*s = Secret(value)
	return nil
}

// String returns a placeholder, or nothing for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "(secret)"
}

// GoString is for %#v, which would show the value otherwise.
func (s Secret) GoString() string { return s.String() }
