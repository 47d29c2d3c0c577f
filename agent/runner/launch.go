//go:build unix

package runner

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/schedd/schedd/agent/runner/policy"
)

// work is a Spec made ready for the kernel.
type work struct {
	program string // what is executed; argv[0] is what the program sees
	argv    []string
	env     []string
	dir     string
	who     *identity // nil: the agent's own user
	script  string    // the script's file, "" when there is none
	stdin   int       // file descriptors, -1 when not open
	output  int
}

// answerWithin is how long the file systems that a start needs may take to answer.
const answerWithin = time.Minute

// prepareInTime is prepare, but gives up when a file system does not answer: whoever
// asked would wait for as long, and with it the next life of the agent. What was begun
// is taken back when it does. Whose fault it is, a probe tells.
func (l *Local) prepareInTime(s Spec, allowed policy.Policy) (*work, error) {
	type made struct {
		*work
		err error
	}
	done := make(chan made, 1)
	home.crew.Go(func() { w, err := l.prepare(s, allowed); done <- made{w, err} })
	late := time.NewTimer(l.answer)
	defer late.Stop()
	select {
	case m := <-done:
		return m.work, m.err
	case <-late.C:
	}
	go func() { // until the kernel lets it go
		m := <-done
		m.close()
		removeScript(l.log, s.ID, m.script)
	}()
	err := fmt.Errorf("starting attempt %q: the file system of its program, its working directory %q, its user's home or its output does not answer within %v: see whether it is mounted and its server is up", s.ID, s.Dir, l.answer)
	if l.Probe() != nil { // it may be that of this worker's own directory, too
		err = Unable(err)
	}
	return &work{stdin: -1, output: -1}, err
}

// prepare does all that can be done, and can fail, before the fork. The caller
// closes the work, also after an error, and removes its script.
func (l *Local) prepare(s Spec, allowed policy.Policy) (*work, error) {
	w := &work{env: s.Env, dir: s.Dir, stdin: -1, output: -1}
	if err := s.check(); err != nil {
		return w, err
	}
	if err := w.setUser(s, allowed); err != nil {
		return w, err
	}
	if err := w.setArgv(l, s); err != nil {
		return w, err
	}
	if err := w.setProgram(allowed); err != nil {
		return w, err
	}
	w.reach(s.Dir != "")
	var err error
	if w.output, err = openOutput(s.Output, l.outputOwner); err != nil {
		return w, blame(openLog, s.Limits, err)
	}
	if w.stdin, err = l.openStdin(s.Stdin); err != nil {
		return w, blame(keepInput, s.Limits, fmt.Errorf("keeping %d bytes for standard input: %w", len(s.Stdin), err))
	}
	return w, nil
}

// check finds what no kernel can make sense of.
func (s Spec) check() error {
	switch {
	case s.ID == "":
		return errors.New("the attempt has no id")
	case len(s.Argv) == 0 && s.Script == "":
		return errors.New("there is nothing to run: give argv or a script")
	case len(s.Argv) != 0 && s.Script != "":
		return errors.New("argv and a script are both given: give one of them")
	case len(s.Argv) != 0 && s.Argv[0] == "":
		return errors.New("argv begins with an empty string: its first element is the program to run")
	case len(s.Interpreter) != 0 && s.Interpreter[0] == "":
		return errors.New("interpreter begins with an empty string: its first element is the program that runs the script")
	}
	for i, a := range slices.Concat(s.Argv, s.Interpreter) {
		if strings.ContainsRune(a, 0) {
			return fmt.Errorf("element %d of argv, %q, has a zero byte in it, which no program can be given", i, a)
		}
	}
	for _, kv := range s.Env {
		if k, _, ok := strings.Cut(kv, "="); !ok || k == "" || strings.ContainsRune(kv, 0) {
			return fmt.Errorf("environment entry %q is not NAME=value without a zero byte", kv)
		}
	}
	if strings.ContainsRune(s.Dir, 0) {
		return fmt.Errorf("working directory %q has a zero byte in it", s.Dir)
	}
	return nil
}

// setUser says who it runs as, where, and what a login would add to its environment.
func (w *work) setUser(s Spec, allowed policy.Policy) error {
	login, err := own()
	if s.User != "" {
		login, err = lookupIdentity(s.User)
		w.who = login
	}
	switch {
	case err != nil && s.User == "" && allowed.Users == nil:
		login = &identity{home: "/"} // a user that has a number and nothing else
	case err != nil:
		return blame(findUser, s.Limits, err)
	default:
		w.env = login.environment(s.Env)
	}
	if w.dir == "" {
		w.dir = login.start()
	}
	if err := allowed.CheckUser(login.name); err != nil {
		return err
	}
	return allowed.CheckEnv(s.Env, append(login.environment(nil), "PATH="+DefaultPath)...)
}

// setProgram finds the program. Where not all are allowed, what is started is the
// very path that was checked.
func (w *work) setProgram(allowed policy.Policy) (err error) {
	if w.program, err = lookPath(w.argv[0], w.env, w.dir); err != nil || allowed.Programs == nil {
		return err
	}
	w.program = in(w.dir, filepath.Clean(w.program))
	return allowed.CheckProgram(w.program)
}

// reach touches what the child is going to: its program, and its directory, which one that
// is not named was already when it was looked for. Where their
// file system does not answer, this call hangs, in one thread; in the fork, which stands
// in the way of the collector of garbage, all of the process would. What is wrong with
// them the child finds, as the user that it is then.
func (w *work) reach(named bool) {
	var st syscall.Stat_t // that of package os makes more of it than is looked at here
	if named {
		_ = syscall.Stat(w.dir, &st)
	}
	program := in(w.dir, w.program)
	if err := syscall.Stat(program, &st); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return
	}
	if fd, err := open(program, syscall.O_RDONLY); err == nil {
		_, _ = syscall.Read(fd, make([]byte, 1))
		_ = syscall.Close(fd) // it was only read
	}
}

func (w *work) setArgv(l *Local, s Spec) error {
	if s.Script == "" {
		w.argv = s.Argv
		return nil
	}
	var err error
	if w.script, err = l.writeScript(s, w.who); err != nil {
		return err
	}
	w.argv = append(interpreter(s), w.script)
	return nil
}

// openOutput opens the file that the process appends to. It must be there: who
// made it has said how it may be read. With an owner it must be that user's.
func openOutput(path string, owner *Owner) (fd int, err error) {
	switch {
	case path == "":
		fd, err = open("/dev/null", syscall.O_WRONLY|syscall.O_APPEND)
	case owner != nil:
		fd, err = openOwned(path, owner)
	default:
		fd, err = open(path, syscall.O_WRONLY|syscall.O_APPEND)
	}
	if err != nil {
		return -1, fmt.Errorf("opening %q for the output: %w", path, err)
	}
	return fd, nil
}

// openStdin returns a descriptor that reads b, however slowly it is read.
func (l *Local) openStdin(b []byte) (int, error) {
	if len(b) == 0 {
		return home.null.open()
	}
	fd, err := l.anonymous()
	if err != nil {
		return -1, err
	}
	for rest := b; len(rest) > 0; {
		n, err := syscall.Write(fd, rest)
		if err != nil && err != syscall.EINTR {
			return -1, errors.Join(err, syscall.Close(fd))
		}
		rest = rest[max(n, 0):]
	}
	if _, err := syscall.Seek(fd, 0, 0); err != nil {
		return -1, errors.Join(err, syscall.Close(fd))
	}
	return fd, nil
}

// open is a bare open(2): a start needs the number of the descriptor and nothing
// of what os.File does for it.
func open(path string, flags int) (int, error) {
	for {
		fd, err := syscall.Open(path, flags|syscall.O_CLOEXEC, 0)
		if err != syscall.EINTR {
			return fd, err
		}
	}
}

// null is /dev/null, which is read where nothing is given. It is opened once, and all
// attempts read that: there is nothing in it that one could take from another, or leave it.
type null struct {
	mu sync.Mutex // guards what follows
	fd int        // 0: it is not open
}

func (n *null) open() (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fd > 0 {
		return n.fd, nil
	}
	fd, err := open("/dev/null", syscall.O_RDONLY)
	if err != nil {
		return -1, err
	}
	n.fd = fd
	return fd, nil
}

func (n *null) is(fd int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.fd > 0 && fd == n.fd
}

// close closes the agent's copies of the descriptors.
func (w *work) close() {
	for _, fd := range []int{w.stdin, w.output} {
		if fd >= 0 && !home.null.is(fd) {
			_ = syscall.Close(fd) // nothing was written through it that could be lost
		}
	}
}
