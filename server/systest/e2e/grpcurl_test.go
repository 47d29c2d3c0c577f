//go:build e2e

package e2e_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// curl is grpcurl, pointed at a primary.
type curl struct{ program, addr string }

// grpcurl finds it beside our programs, where "make tools" puts it.
func grpcurl(t *testing.T, addr string) curl {
	t.Helper()
	program := binary("grpcurl")
	if _, err := os.Stat(program); errors.Is(err, fs.ErrNotExist) {
		t.Skipf(`there is no %s; "make tools" builds it`, program)
	}
	return curl{program, addr}
}

func (c curl) call(t *testing.T, data string, args ...string) result {
	t.Helper()
	argv := []string{c.program, "-plaintext", "-connect-timeout", "30", "-max-time", "60"}
	if data != "" {
		argv = append(argv, "-d", data)
	}
	argv = append(append(argv, c.addr), args...)
	var r result
	await(t, "grpcurl is answered", func() (bool, any) {
		r = command(t, nil, argv...)
		return r.code == 0 || !strings.Contains(r.err, "Code: Unavailable"), r.err // it can't at the moment
	})
	return r
}

// ok makes a call that has to succeed, and returns what it printed.
func (c curl) ok(t *testing.T, data string, args ...string) string {
	t.Helper()
	r := c.call(t, data, args...)
	if r.code != 0 {
		t.Fatalf("grpcurl %q exits with %d and says %s%s", args, r.code, r.out, r.err)
	}
	return r.out
}

// into makes a call that has to succeed, and reads its answer.
func (c curl) into(t *testing.T, answer any, data, method string) {
	t.Helper()
	if text := c.ok(t, data, method); json.Unmarshal([]byte(text), answer) != nil {
		t.Fatalf("%s answers %s", method, text)
	}
}

// json makes a call that has to have this answer.
func (c curl) json(t *testing.T, want map[string]any, data, method string) {
	t.Helper()
	got := map[string]any{}
	c.into(t, &got, data, method)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got)\n%s", method, diff)
	}
}

// fails makes a call that has to be refused, with all of these words.
func (c curl) fails(t *testing.T, code, words, data, method string) {
	t.Helper()
	r := c.call(t, data, method)
	said := r.out + r.err
	if r.code == 0 || !strings.Contains(said, code) {
		t.Errorf("%s with %s exits with %d, want %s: %s", method, data, r.code, code, said)
	}
	for word := range strings.SplitSeq(words, "|") {
		if !strings.Contains(said, word) {
			t.Errorf("%s with %s does not tell of %q: %s", method, data, word, said)
		}
	}
}
