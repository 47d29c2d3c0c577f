//go:build unix

package runner

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// lookPath finds a program as execvp does: with a slash it is a path, relative
// to dir; else the first executable file of that name in PATH.
func lookPath(name string, env []string, dir string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	path, ok := getenv(env, "PATH")
	if !ok {
		path = DefaultPath
	}
	unfit := ""
	for _, d := range filepath.SplitList(path) {
		if d == "" {
			d = "."
		}
		full := d + "/" + name
		fi, err := os.Stat(in(dir, full))
		switch {
		case err != nil:
		case fi.Mode().IsRegular() && fi.Mode().Perm()&0o111 != 0:
			return full, nil
		default:
			unfit = full
		}
	}
	if unfit != "" {
		return "", fmt.Errorf("program %q was found as %q, which is not an executable file: %w", name, unfit, fs.ErrPermission)
	}
	return "", fmt.Errorf("program %q was not found in PATH=%s: install it on this worker, or give its full path: %w", name, path, fs.ErrNotExist)
}

// in is path as seen from dir.
func in(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// explain turns the number that a fork or exec came back with into a sentence.
// The kernel doesn't say which of its steps failed, so this looks.
func (w *work) explain(err error) error {
	if why := w.explainDir(err); why != nil {
		return why
	}
	program := in(w.dir, w.program)
	fi, serr := os.Stat(program)
	say := func(format string, args ...any) error {
		return fmt.Errorf("starting %q as %q: %s: %w", w.argv[0], program, fmt.Sprintf(format, args...), err)
	}
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		return say("the worker has no processes or memory left to give (limits: ulimit -u, TasksMax, pids.max)")
	case errors.Is(err, syscall.E2BIG):
		return say("the arguments and the environment together are larger than the kernel takes")
	case errors.Is(err, syscall.ETXTBSY):
		return say("the program is being written to at this moment")
	case errors.Is(err, syscall.ENOEXEC):
		return say("it is neither a program for this machine nor a script with a #! line")
	case errors.Is(serr, fs.ErrNotExist):
		return say("there is no such file%s", carriageReturn(program))
	case serr != nil:
		return say("it can't be reached")
	case errors.Is(err, fs.ErrNotExist):
		return say("the file is there but its interpreter is not: %s", firstLine(program))
	case fi.IsDir():
		return say("it is a directory")
	case errors.Is(err, syscall.EACCES):
		return say("%s", w.whyDenied(program, fi))
	}
	return say("the kernel refused")
}

// explainDir says what is wrong with the working directory, if it is that.
func (w *work) explainDir(err error) error {
	fi, serr := os.Stat(w.dir)
	switch {
	case errors.Is(serr, fs.ErrNotExist):
		return fmt.Errorf("working directory %q does not exist on this worker: %w", w.dir, err)
	case serr != nil:
		return fmt.Errorf("working directory %q can't be reached: %w", w.dir, serr)
	case !fi.IsDir():
		return fmt.Errorf("working directory %q is not a directory: %w", w.dir, err)
	case w.who != nil && errors.Is(err, syscall.EACCES):
		if at := w.who.barred(w.dir); at != "" {
			return fmt.Errorf("working directory %q can't be entered by user %q: no permission to pass through %q: %w", w.dir, w.who.name, at, err)
		}
	}
	return nil
}

// whyDenied explains EACCES for a file that is there.
func (w *work) whyDenied(program string, fi os.FileInfo) string {
	switch {
	case fi.Mode().Perm()&0o111 == 0:
		return fmt.Sprintf("it is not executable (mode %v): chmod +x it, or name its interpreter first", fi.Mode())
	case w.who != nil && w.who.barred(filepath.Dir(program)) != "":
		return fmt.Sprintf("user %q may not pass through %q", w.who.name, w.who.barred(filepath.Dir(program)))
	case w.who != nil && !w.who.allowed(fi, 1):
		return fmt.Sprintf("user %q may not execute it (mode %v)", w.who.name, fi.Mode())
	}
	return "it may not be executed (a file system mounted noexec, its interpreter, or a security policy)"
}

// firstLine shows a file's "#!" line; what is no script is a program whose
// dynamic loader is missing.
func firstLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "it can't be read"
	}
	defer func() { _ = f.Close() }()
	line, err := bufio.NewReader(io.LimitReader(f, 256)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) || !strings.HasPrefix(line, "#!") {
		return "it was linked for a dynamic loader that this worker hasn't got"
	}
	line = strings.TrimSuffix(line, "\n")
	return fmt.Sprintf("%q%s", line, carriageReturn(line))
}

// carriageReturn is the hint that a file with Windows line ends needs.
func carriageReturn(s string) string {
	if strings.HasSuffix(s, "\r") {
		return " (the line ends in a carriage return: save the script with Unix line ends)"
	}
	return ""
}
