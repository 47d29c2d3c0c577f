package settings

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"strings"
)

// What a program exits with.
const (
	ExitOK     = 0 // stopped as asked
	ExitFailed = 1 // the line on standard error says why
	ExitUsage  = 2 // called in a way that cannot work
)

// Report writes the one line that says why a program ended with err, and
// returns what to exit with.
func Report(program string, err error, w io.Writer) int {
	if err == nil {
		return ExitOK
	}
	line := strings.ReplaceAll(err.Error(), "\n", "; ")
	_, _ = fmt.Fprintf(w, "%s: %s\n", program, line) // nobody is left to tell
	if _, usage := errors.AsType[*UsageError](err); usage {
		return ExitUsage
	}
	return ExitFailed
}

// Version returns the version that this program was built from: of the module,
// and of the repository where it is known.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && !strings.Contains(info.Main.Version, s.Value[:min(12, len(s.Value))]) {
			return info.Main.Version + " " + s.Value
		}
	}
	return info.Main.Version
}

// Logger returns a program's log: text for people, or json for machines.
func Logger(w io.Writer, level slog.Level, format string) (*slog.Logger, error) {
	options := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, Errorf("--log-format: %q is neither text nor json", format)
}
