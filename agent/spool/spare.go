package spool

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxSpares bounds the files that are kept for the next attempts.
const maxSpares = 128

// spares are the files of attempts that printed nothing, kept for the next ones. To
// make a file and delete it again is what a short attempt costs a worker most, and to
// rename it forth and back is half of that: so it keeps its name. They are in a directory
// of their own, beside the spool.
type spares struct {
	dir  string
	life string // of the agent: what the names that it gives begin with

	// Guarded by Spool.mu.
	files  []string        // free ones, by name
	made   int             // names so far
	former map[string]bool // files of former lives that no log has claimed
}

// openSpares finds what former lives have left.
func openSpares(dir string) (spares, error) {
	f := spares{dir: dir, life: strings.ToLower(rand.Text()[:8]), former: map[string]bool{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return f, fmt.Errorf("make the directory of spare files: %w", err)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return f, fmt.Errorf("read the directory of spare files: %w", err)
	}
	for _, n := range names {
		f.former[n.Name()] = true
	}
	return f, nil
}

func (s *Spool) spareAt(file string) string { return filepath.Join(s.spares.dir, file) }

// Reserve takes a spare file for a log that is about to be created, and returns its
// name; "" if there is none. Who reserves one puts on record for which log, and with which
// limit, before it calls [Spool.Create]: nothing else tells the next life whose the
// file is, until it has a name of its own.
func (s *Spool) Reserve() (file string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.spares.files) - 1
	if n < 0 {
		return ""
	}
	file = s.spares.files[n]
	s.spares.files = s.spares.files[:n]
	return file
}

// Discard deletes a file that was reserved for a log which was not created. It is no
// spare again: on record it may be that log's.
func (s *Spool) Discard(file string) {
	if file == "" {
		return
	}
	if err := os.Remove(s.spareAt(file)); err != nil {
		s.log.Warn("spare file was not removed; the next start does it", "path", s.spareAt(file), "err", err)
	}
}

// Claim returns the log of k: the one that was found, or else that of the file which a
// former life has put on record for it; nil if there is neither. It touches no file.
func (s *Spool) Claim(k Key, limit int64, file string) *Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.logs[k]; l != nil {
		return l
	}
	if !s.spares.former[file] || k.check() != nil || checkLimit(limit) != nil {
		return nil
	}
	delete(s.spares.former, file)
	l := s.newLog(k, limit)
	l.borrow(file)
	s.logs[k] = l
	return l
}

// Sweep deletes the spare files of former lives that no log has claimed. Nobody knows
// who writes to them.
func (s *Spool) Sweep() error {
	s.mu.Lock()
	left := s.spares.former
	s.spares.former = nil
	s.mu.Unlock()
	var err error
	for file := range left {
		err = errors.Join(err, os.RemoveAll(s.spareAt(file)))
	}
	return err
}

// borrow has a spare file be that of the log, under the name that it has.
func (l *Log) borrow(file string) { l.path, l.borrowed = l.spool.spareAt(file), file }

// nameOwn gives a borrowed file the name that tells the next life whose it is. Its process
// has to have it open.
func (l *Log) nameOwn() error {
	if l.borrowed == "" {
		return nil
	}
	own := l.ownPath(l.meta.limit)
	// That of package os looks at both of them before. A file that is gone is as good as empty.
	if err := unix.Rename(l.path, own); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.LinkError{Op: "rename", Old: l.path, New: own, Err: err}
	}
	l.path, l.borrowed = own, ""
	return nil
}

// spare keeps the file of a log for another attempt, if it is as good as new, and reports
// whether it did.
func (l *Log) spare() bool {
	s := l.spool
	s.mu.Lock()
	full := len(s.spares.files) >= maxSpares
	file := l.borrowed
	if file == "" {
		s.spares.made++
		file = fmt.Sprintf("%s-%d%s", s.spares.life, s.spares.made, logSuffix)
	}
	s.mu.Unlock()
	if full || !isUnused(l.path) || l.borrowed == "" && unix.Rename(l.path, s.spareAt(file)) != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spares.files = append(s.spares.files, file)
	return true
}
