package settings

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"strings"
)

// Usage writes the help of one command: the summary, then a line for each flag
// with its default, sorted by name. A word in back quotes in the flag's usage is
// the name of its value, as in package flag.
//
// The summary is the command and a sentence on what it does.
func Usage(fs *flag.FlagSet, w io.Writer, envPrefix, summary string) error {
	var b strings.Builder
	fmt.Fprintln(&b, strings.TrimSpace(summary))
	if width := widest(fs); width > 0 {
		fmt.Fprintln(&b, "\nFlags:")
		fs.VisitAll(func(f *flag.Flag) {
			_, usage := flag.UnquoteUsage(f)
			fmt.Fprintf(&b, "  %-*s   %s%s\n", width, synopsis(f), usage, deflt(f))
		})
	}
	if fs.Lookup(configFlag) != nil {
		example := exampleName(fs)
		fmt.Fprintf(&b, "\nA flag wins over the environment, that over the file, and that over the default:\n"+
			"--%s is %s in the environment and %s in the file.\n", example, variable(envPrefix, example), key(example))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// synopsis is the left column: the flag and the name of its value.
func synopsis(f *flag.Flag) string {
	name, _ := flag.UnquoteUsage(f)
	return strings.TrimSpace("--" + f.Name + " " + name)
}

func widest(fs *flag.FlagSet) (width int) {
	fs.VisitAll(func(f *flag.Flag) { width = max(width, len(synopsis(f))) })
	return width
}

// deflt is the default in brackets. A flag that is off, or a text that is empty,
// goes without saying.
func deflt(f *flag.Flag) string {
	if f.DefValue == "" || f.DefValue == "false" {
		return ""
	}
	return " (default " + f.DefValue + ")"
}

// exampleName is a flag of fs to explain the three names with: one of two words.
func exampleName(fs *flag.FlagSet) string {
	var found string
	fs.VisitAll(func(f *flag.Flag) {
		if found == "" && strings.Contains(f.Name, "-") {
			found = f.Name
		}
	})
	return cmp.Or(found, configFlag)
}
