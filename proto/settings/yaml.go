package settings

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds a configuration file, in bytes: more is another kind of file.
const maxFile = 1 << 20

// file is the configuration file while it is read. It is one flat mapping from
// settings to values; a list stands for its items, joined by commas.
type file struct {
	name string
	fs   *flag.FlagSet
	set  func(name, value string) error
}

// parse calls set for each key of the file.
func (f file) parse(r io.Reader) error {
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return Errorf("read the configuration file %s: %w", f.name, err)
	}
	if len(text) > maxFile {
		return Errorf("%s is larger than %d bytes: is this the configuration file?", f.name, maxFile)
	}
	root, err := f.document(string(text))
	if err != nil || root == nil {
		return err
	}
	if root.Kind != yaml.MappingNode {
		return f.errorf(root, `want lines of the form "key: value"`)
	}
	seen := make(map[string]int, len(root.Content)/2)
	for i := 0; i+1 < len(root.Content); i += 2 {
		name, value := root.Content[i], root.Content[i+1]
		if line, again := seen[name.Value]; again {
			return f.errorf(name, "%q was given in line %d already", name.Value, line)
		}
		seen[name.Value] = name.Line
		if err := f.entry(name, value); err != nil {
			return err
		}
	}
	return nil
}

// document returns the root of the only document, or nil if there is none.
func (f file) document(text string) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(strings.NewReader(text))
	var first, second yaml.Node
	switch err := decoder.Decode(&first); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, f.syntax(err)
	}
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		return nil, f.syntax(err)
	default:
		return nil, f.errorf(&second, "a second document begins; want one")
	}
	root := first.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil // nothing but comments
	}
	return root, nil
}

// entry sets one setting.
func (f file) entry(name, value *yaml.Node) error {
	setting, keys := f.lookup(name.Value)
	if name.Kind != yaml.ScalarNode || setting == nil {
		return f.errorf(name, "unknown key %q%s", name.Value, didYouMean("", name.Value, keys))
	}
	text, problem := plain(value)
	if problem != "" {
		return f.errorf(value, "%s: %s", name.Value, problem)
	}
	if err := f.set(setting.Name, text); err != nil {
		reason := err
		if inner := errors.Unwrap(err); inner != nil {
			reason = inner // without "error setting flag ..."
		}
		quoted := fmt.Sprintf("%q", text)
		return f.errorf(value, "%s: %s", name.Value, mismatch(setting, quoted, reason.Error()))
	}
	return nil
}

// lookup returns the flag of a key, or nil, and all keys that there are.
func (f file) lookup(name string) (found *flag.Flag, keys []string) {
	f.fs.VisitAll(func(fl *flag.Flag) {
		if fl.Name == configFlag {
			return // one file does not name another
		}
		keys = append(keys, key(fl.Name))
		if key(fl.Name) == name {
			found = fl
		}
	})
	return found, keys
}

// plain returns a value as it would be given to its flag, or else what is wrong
// with it. It does not repeat the value, which may be a secret.
func plain(n *yaml.Node) (text, problem string) {
	n = target(n)
	switch n.Kind {
	case yaml.ScalarNode:
		return scalar(n)
	case yaml.SequenceNode:
		return list(n)
	default:
		return "", "want a value, not a mapping"
	}
}

func list(n *yaml.Node) (text, problem string) {
	items := make([]string, len(n.Content))
	for i, item := range n.Content {
		item = target(item)
		if item.Kind != yaml.ScalarNode {
			return "", fmt.Sprintf("item %d of the list: want a value, not a list or a mapping", i+1)
		}
		if items[i], problem = scalar(item); problem != "" {
			return "", fmt.Sprintf("item %d of the list: %s", i+1, problem)
		}
		if strings.Contains(items[i], ",") {
			return "", fmt.Sprintf("item %d of the list: has a comma, which would make it two", i+1)
		}
	}
	return strings.Join(items, ","), ""
}

func scalar(n *yaml.Node) (text, problem string) {
	switch n.ShortTag() {
	case "!!str", "!!int", "!!float", "!!bool", "!!timestamp":
		return n.Value, ""
	case "!!null":
		return "", `no value; leave the key out for the default, or write "" for an empty one`
	default:
		return "", "begins with a tag; put quotes around a value that begins with !"
	}
}

// target follows an alias to what it stands for.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// errorf returns an error that begins with the place of n.
func (f file) errorf(n *yaml.Node, format string, args ...any) error {
	return Errorf("%s:%d: %s", f.name, n.Line, fmt.Sprintf(format, args...))
}

// syntax passes on in one line what the parser says, which has the line number.
// It does not pass on the parser's quote of a value, which may be a secret.
func (f file) syntax(err error) error {
	if strings.Contains(err.Error(), "unknown anchor") {
		return Errorf("%s: put quotes around a value that begins with *", f.name)
	}
	return Errorf("%s: %s", f.name, strings.Join(strings.Fields(err.Error()), " "))
}
