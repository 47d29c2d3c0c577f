package deploy_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"
)

// tree is a part of a YAML file. What is asked of it and is not there fails the
// test.
type tree struct {
	t  *testing.T
	at string // where in which file
	v  any
}

// documents reads all documents of a YAML file.
func documents(t *testing.T, name string) (docs []tree) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var v any
		switch err := d.Decode(&v); {
		case errors.Is(err, io.EOF):
			return docs
		case err != nil:
			t.Fatalf("%s: %v", name, err)
		}
		docs = append(docs, tree{t, fmt.Sprintf("%s[%d]", name, len(docs)), v})
	}
}

// has reports whether there is something at a key.
func (n tree) has(key string) bool {
	m, ok := n.v.(map[string]any)
	return ok && m[key] != nil
}

// get follows keys down.
func (n tree) get(keys ...string) tree {
	n.t.Helper()
	for _, key := range keys {
		if !n.has(key) {
			n.t.Fatalf("%s has no %s", n.at, key)
		}
		n = tree{n.t, n.at + "." + key, n.v.(map[string]any)[key]}
	}
	return n
}

// list returns the items of a list.
func (n tree) list() (items []tree) {
	n.t.Helper()
	all, ok := n.v.([]any)
	if !ok {
		n.t.Fatalf("%s is no list", n.at)
	}
	for i, v := range all {
		items = append(items, tree{n.t, fmt.Sprintf("%s[%d]", n.at, i), v})
	}
	return items
}

// only returns the one item of a list.
func (n tree) only() tree {
	n.t.Helper()
	items := n.list()
	if len(items) != 1 {
		n.t.Fatalf("%s has %d items, want one", n.at, len(items))
	}
	return items[0]
}

// keys returns the keys of a mapping, sorted.
func (n tree) keys() []string {
	n.t.Helper()
	m, ok := n.v.(map[string]any)
	if !ok {
		n.t.Fatalf("%s is no mapping", n.at)
	}
	return slices.Sorted(maps.Keys(m))
}

// text returns what is there as it would be written.
func (n tree) text() string { return fmt.Sprint(n.v) }

// texts returns the items of a list, or the keys of a mapping; of nothing, none.
func (n tree) texts() (all []string) {
	n.t.Helper()
	if _, ok := n.v.(map[string]any); ok {
		return n.keys()
	}
	for _, item := range n.list() {
		all = append(all, item.text())
	}
	return all
}

// pick returns the items of a list as the value that they have at a key.
func (n tree) pick(keys ...string) (all []string) {
	n.t.Helper()
	for _, item := range n.list() {
		all = append(all, item.get(keys...).text())
	}
	return all
}

// within reports whether all of this mapping is in another one.
func (n tree) within(other tree) bool {
	n.t.Helper()
	for _, key := range n.keys() {
		if !other.has(key) || other.get(key).text() != n.get(key).text() {
			return false
		}
	}
	return true
}
