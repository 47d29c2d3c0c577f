package settings_test

import (
	"errors"
	"flag"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/schedd/schedd/proto/settings"
)

func TestUsage(t *testing.T) {
	var c config
	var b strings.Builder
	if err := settings.Usage(flags(&c), &b, prefix, "plough run [flags]: one plough"); err != nil {
		t.Fatal(err)
	}
	want := `plough run [flags]: one plough

Flags:
  --api-addr ADDR      ADDR to listen on (default 127.0.0.1:1)
  --config FILE        YAML FILE with settings
  --even value         an even number
  --grace duration     time to stop (default 10s)
  --insecure           no TLS
  --join-token TOKEN   TOKEN to enrol with
  --labels LABELS      comma-separated LABELS
  --slots int          runs at the same time (default 4)

A flag wins over the environment, that over the file, and that over the default:
--api-addr is PLOUGH_API_ADDR in the environment and api_addr in the file.
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A command without settings has no heading for them.
func TestUsageWithoutFlags(t *testing.T) {
	var b strings.Builder
	if err := settings.Usage(flag.NewFlagSet("", flag.ContinueOnError), &b, prefix, "plough version: which one this is"); err != nil {
		t.Fatal(err)
	}
	if want := "plough version: which one this is\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

// Whoever asks for help gets it, whatever else is wrong.
func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"--slots=3", "-help"}} {
		_, err := parsed(t, setup{args: args, env: map[string]string{"PLOUGH_SLOTS": "many"}})
		if !errors.Is(err, settings.ErrHelp) {
			t.Errorf("%v: got %v, want ErrHelp", args, err)
		}
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestUsageReportsFailedWrite(t *testing.T) {
	var c config
	if err := settings.Usage(flags(&c), brokenPipe{}, prefix, "plough"); err == nil {
		t.Error("no error, want the writer's")
	}
}
