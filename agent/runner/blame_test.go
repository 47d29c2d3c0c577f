package runner

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"
)

// What the job has asked for is the job's fault, and what it has not, the worker's. Both
// keep their words.
func TestBlame(t *testing.T) {
	for _, test := range []struct {
		name string
		at   step
		l    Limits
		err  error
		ours bool
	}{
		{"the policy can't be read", readPolicy, Limits{}, fs.ErrNotExist, true},
		{"no such user", findUser, Limits{}, errors.New("not known"), false},
		{"no more files, for the list of users", findUser, Limits{}, syscall.EMFILE, true},
		{"no room for the script", keepScript, Limits{}, syscall.ENOSPC, true},
		{"no right to keep a script", keepScript, Limits{}, syscall.EACCES, true},
		{"no memory for the input", keepInput, Limits{}, syscall.ENOMEM, true},
		{"somebody else's output", openLog, Limits{}, syscall.EPERM, false},
		{"a disk without an output", openLog, Limits{}, syscall.EIO, true},
		{"no control group", makeGroup, Limits{}, syscall.ENOSPC, true},
		{"no more processes", beginToRun, Limits{PIDs: 7}, syscall.EAGAIN, true},
		{"no memory", beginToRun, Limits{}, syscall.ENOMEM, true},
		{"none within its limit", beginToRun, Limits{Memory: 4096}, syscall.ENOMEM, false},
		{"no such program", beginToRun, Limits{}, syscall.ENOENT, false},
		{"no permission", beginToRun, Limits{}, syscall.EACCES, false},
		{"a program on a bad disk", beginToRun, Limits{}, syscall.EIO, false},
		{"nothing is wrong", keepScript, Limits{}, nil, false},
	} {
		var told error
		if test.err != nil {
			told = fmt.Errorf("starting it: %w", test.err)
		}
		got := blame(test.at, test.l, told)
		if errors.Is(got, ErrUnable) != test.ours {
			t.Errorf("%s: whose fault it is, is wrong: %v", test.name, got)
		}
		if test.err != nil && (!errors.Is(got, test.err) || got.Error() != told.Error()) {
			t.Errorf("%s: became %v", test.name, got)
		}
	}
}
