//go:build unix

package runner

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// identity is the user that an attempt runs as.
type identity struct {
	name, home, shell string
	uid, gid          uint32
	groups            []uint32
}

// own is whom a process runs as that nobody is named for.
var own = sync.OnceValues(func() (*identity, error) { return lookupIdentity(strconv.Itoa(os.Geteuid())) })

// start is where a process begins that is not told where: at home, if there is such
// a place.
func (id *identity) start() string {
	if info, err := os.Stat(id.home); err == nil && info.IsDir() {
		return id.home
	}
	return "/"
}

// lookupIdentity finds a user by name or, failing that, by number.
func lookupIdentity(name string) (*identity, error) {
	u, err := user.Lookup(name)
	if _, e := strconv.ParseUint(name, 10, 32); err != nil && e == nil {
		u, err = user.LookupId(name)
	}
	var noName user.UnknownUserError
	var noID user.UnknownUserIdError
	switch {
	case errors.As(err, &noName), errors.As(err, &noID):
		return nil, fmt.Errorf("user %q is not known on this worker: create it, or name another", name)
	case err != nil:
		return nil, fmt.Errorf("looking up user %q: %w", name, err)
	}
	id := &identity{name: u.Username, home: u.HomeDir, shell: loginShell("/etc/passwd", u.Username)}
	gids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("looking up the groups of user %q: %w", name, err)
	}
	for _, s := range append([]string{u.Uid, u.Gid}, gids...) {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("reading the numbers of user %q: %w", name, err)
		}
		id.groups = append(id.groups, uint32(n))
	}
	id.uid, id.gid, id.groups = id.groups[0], id.groups[1], id.groups[2:]
	if me := os.Geteuid(); me != 0 && me != int(id.uid) {
		return nil, fmt.Errorf("running as user %q: the agent runs as user number %d and only root may run as others: "+
			"start schedagent as root, or leave the job's user empty: %w", name, me, os.ErrPermission)
	}
	return id, nil
}

// loginShell reads the shell of a user from a passwd file; users who aren't in it
// (they are known from a directory service) get /bin/sh.
func loginShell(passwd, name string) string {
	b, err := os.ReadFile(passwd)
	if err != nil {
		return "/bin/sh"
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) == 7 && f[0] == name && f[6] != "" {
			return f[6]
		}
	}
	return "/bin/sh"
}

// environment is env with what a login would add.
func (id *identity) environment(env []string) []string {
	adds := [...]struct{ name, value string }{{"HOME", id.home}, {"USER", id.name}, {"LOGNAME", id.name}, {"SHELL", id.shell}}
	env = append(make([]string, 0, len(env)+len(adds)), env...)
	for _, v := range adds {
		if _, given := getenv(env, v.name); !given {
			env = append(env, v.name+"="+v.value)
		}
	}
	return env
}

// credential is what the kernel is asked to switch to: nil when there is
// nothing to switch, or nobody who may.
func (id *identity) credential() *syscall.Credential {
	if id == nil || os.Geteuid() != 0 {
		return nil
	}
	return &syscall.Credential{Uid: id.uid, Gid: id.gid, Groups: id.groups}
}

// barred returns the first directory on the way to dir, dir included, that the
// user may not pass through, or "".
func (id *identity) barred(dir string) string {
	dir, err := filepath.Abs(dir)
	if err != nil || id.uid == 0 {
		return ""
	}
	for _, at := range ancestors(dir) {
		if fi, err := os.Stat(at); err == nil && !id.allowed(fi, 1) {
			return at
		}
	}
	return ""
}

// ancestors are "/", and every directory down to dir.
func ancestors(dir string) []string {
	at := []string{dir}
	for dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		at = append(at, dir)
	}
	slices.Reverse(at)
	return at
}

// allowed reports whether the mode bits grant the user bit (4 read, 1 execute).
// It knows nothing of ACLs: it is for explaining and for early warning.
func (id *identity) allowed(fi os.FileInfo, bit os.FileMode) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	mode := fi.Mode().Perm()
	switch {
	case !ok:
		return true
	case st.Uid == id.uid:
		return mode&(bit<<6) != 0
	case st.Gid == id.gid || slices.Contains(id.groups, st.Gid):
		return mode&(bit<<3) != 0
	}
	return mode&bit != 0
}

// getenv finds a name in an environment as a process would: the first one.
func getenv(env []string, name string) (string, bool) {
	for _, kv := range env {
		if rest, ok := strings.CutPrefix(kv, name); ok && rest != "" && rest[0] == '=' {
			return rest[1:], true
		}
	}
	return "", false
}
