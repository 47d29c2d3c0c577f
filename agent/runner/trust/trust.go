//go:build unix

// Package trust tells whether what stands under a name is this process's to rely on,
// or could be put in its place by somebody else.
//
// It looks and changes nothing. What it says stays true as long as root and this
// process's user leave things as they are.
package trust

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxLinks bounds the symbolic links on the way to a name, as the kernel does.
const maxLinks = 40

// Path returns who, other than root and this process's user, could have something of
// his own stand under an absolute name: because it, or a directory or link on the way
// to it, is his, or is one that others may write to. In a directory with the sticky bit,
// such as /tmp, others can add names and not change those that are not theirs. What is
// not there yet is no fault: whoever makes it asks again afterwards.
func Path(name string) error {
	if !filepath.IsAbs(name) {
		return fmt.Errorf("%q is not absolute; write it from / on", name)
	}
	at, rest := "/", split(name)
	if err := check(at); err != nil {
		return err
	}
	for links := 0; len(rest) > 0; {
		next := rest[0]
		rest = rest[1:]
		if next == ".." {
			at = filepath.Dir(at) // it was resolved, and checked on the way here
			continue
		}
		path := filepath.Join(at, next)
		switch err := check(path); {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		}
		target, err := os.Readlink(path)
		switch {
		case errors.Is(err, syscall.EINVAL): // it is no link
			at = path
			continue
		case err != nil:
			return err
		}
		if links++; links > maxLinks {
			return fmt.Errorf("%q: %w", name, syscall.ELOOP)
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(split(target), rest...)
	}
	return nil
}

// split returns the names in a path. Unlike filepath.Clean it keeps "..", which says
// something else behind a link.
func split(path string) (names []string) {
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	return names
}

// check looks at one file, directory or link.
func check(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user number %d, who could put something else in its place: chown it to root, or take another place", path, st.Uid)
	}
	link, sticky := info.Mode()&fs.ModeSymlink != 0, info.IsDir() && info.Mode()&fs.ModeSticky != 0
	if info.Mode().Perm()&0o022 != 0 && !link && !sticky {
		return fmt.Errorf("others may write to %s (mode %v): chmod go-w it, or take another place", path, info.Mode().Perm())
	}
	return nil
}
