//go:build unix

package runner

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// writeScript writes the script to a file that only its user can read, and
// returns the path, also when it fails after having made the file.
//
// The file is never executed itself: its interpreter is, with the file as an
// argument. So it can't be "busy" because another fork still holds it open for
// writing, and the directory may be mounted noexec.
func (l *Local) writeScript(s Spec, who *identity) (string, error) {
	if who != nil {
		if at := who.barred(l.temp); at != "" {
			return "", fmt.Errorf("writing the script: user %q can't pass through %q: give the agent a directory for scripts that everybody can (mode 0711)", who.name, at)
		}
	}
	f, err := os.CreateTemp(l.temp, scriptPrefix(s.ID)+"*") // made with 0600
	if err != nil {
		return "", blame(keepScript, s.Limits, fmt.Errorf("writing the script: %w", err))
	}
	_, err = f.WriteString(s.Script)
	if err == nil && who.credential() != nil {
		err = f.Chown(int(who.uid), int(who.gid))
	}
	if err == nil {
		err = f.Chmod(0o700)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return f.Name(), blame(keepScript, s.Limits, fmt.Errorf("writing the script: %w", err))
	}
	return f.Name(), nil
}

// scriptPrefix is how the files of one attempt's scripts begin. Two attempts may
// share it; the random end tells them apart.
func scriptPrefix(id string) string {
	return "schedd-script-" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_':
			return r
		}
		return '-'
	}, id[:min(len(id), 100)]) + "-"
}

// removeScripts removes what an earlier life left of an attempt's scripts.
func (l *Local) removeScripts(id string) error {
	entries, err := os.ReadDir(l.temp)
	if err != nil {
		return fmt.Errorf("looking for scripts left in %q: %w", l.temp, err)
	}
	for _, e := range entries {
		end, ok := strings.CutPrefix(e.Name(), scriptPrefix(id))
		if ok && strings.Trim(end, "0123456789") == "" {
			err = errors.Join(err, os.Remove(filepath.Join(l.temp, e.Name())))
		}
	}
	return err
}

// interpreter is the command that runs the script, without the script's path.
func interpreter(s Spec) []string {
	if argv := shebang(s.Script); argv != nil {
		return argv
	}
	if len(s.Interpreter) > 0 {
		return slices.Clone(s.Interpreter)
	}
	return []string{"/bin/sh", "-e"}
}

// shebang reads a "#!" line as Linux does: the interpreter, and all the rest as
// one argument. It returns nil when there is no such line, or nothing on it.
func shebang(script string) []string {
	line, ok := strings.CutPrefix(script, "#!")
	if !ok {
		return nil
	}
	line, _, _ = strings.Cut(line, "\n")
	line, _, _ = strings.Cut(line, "\x00")
	line = strings.Trim(line, " \t")
	if line == "" {
		return nil
	}
	i := strings.IndexAny(line, " \t")
	if i < 0 {
		return []string{line}
	}
	return []string{line[:i], strings.TrimLeft(line[i:], " \t")}
}
