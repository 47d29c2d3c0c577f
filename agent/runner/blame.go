package runner

import (
	"errors"
	"slices"
	"syscall"
)

// ErrUnable is returned by Start when it is not the attempt that keeps it from being
// started but this worker: no room for its script, no more processes, a control group
// that can't be made. Another worker may well be able to, and this one when its
// [Runner].Probe says so.
var ErrUnable = errors.New("this worker can't start anything at present")

// Unable returns err, in its own words, as one for which ErrUnable is true.
func Unable(err error) error { return unable{err} }

type unable struct{ error }

func (u unable) Is(target error) bool { return target == ErrUnable }
func (u unable) Unwrap() error        { return u.error }

// step is one part of a start.
type step int

const (
	readPolicy step = iota // the worker's own file
	findUser               // in the host's lists of users
	keepScript             // in the runner's directory
	keepInput              // of the process
	openLog                // of the attempt, in the agent's spool
	makeGroup              // a control group
	beginToRun             // fork and exec
)

// blame says whose fault it is that a step failed: the error is [Unable] when it is the
// worker's. What the job has asked for, such as a program, a user or a directory that is
// not there, is the job's.
func blame(at step, l Limits, err error) error {
	if err == nil || !isOurs(at, l, err) {
		return err
	}
	return Unable(err)
}

func isOurs(at step, l Limits, err error) bool {
	switch at {
	case readPolicy, keepScript, keepInput, makeGroup: // no job has a say in these
		return true
	case findUser, openLog:
		return isAny(err, used) || isAny(err, faults)
	case beginToRun:
		// Memory that the attempt itself may not have is no shortage of the worker's; and
		// a disk that fails here is that of the program, or of its directory.
		return isAny(err, used) && (l.Memory == 0 || !errors.Is(err, syscall.ENOMEM))
	}
	return false
}

var (
	// used is that something of which the host has so much is used up.
	used = []syscall.Errno{syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE}
	// faults is that a disk does not do what it should.
	faults = []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO}
)

func isAny(err error, list []syscall.Errno) bool {
	return slices.ContainsFunc(list, func(e syscall.Errno) bool { return errors.Is(err, e) })
}
