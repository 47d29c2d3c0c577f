package spool

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxSpares bounds the files that are kept for the next attempts.
const maxSpares = 64

// spares are the files of attempts that printed nothing, kept for the next ones. To
// make a file and delete it again is what a short attempt costs a worker most; to rename
// one is little. They are in a directory of their own, beside the spool.
type spares struct {
	dir   string
	files []string // by name; guarded by Spool.mu
	made  int      // names so far; likewise
}

// openSpares takes away what a former life has kept: nobody knows who writes to it.
func openSpares(dir string) (spares, error) {
	if err := os.RemoveAll(dir); err != nil {
		return spares{}, fmt.Errorf("empty the directory of spare files: %w", err)
	}
	return spares{dir: dir}, os.Mkdir(dir, 0o700)
}

// take makes path out of a spare file, and reports whether there was one.
func (s *Spool) take(path string) bool {
	s.mu.Lock()
	n := len(s.spares.files) - 1
	if n < 0 {
		s.mu.Unlock()
		return false
	}
	spare := s.spares.files[n]
	s.spares.files = s.spares.files[:n]
	s.mu.Unlock()
	return unix.Rename(spare, path) == nil // that of package os looks at both of them before
}

// spare keeps the file at path for another attempt, if it is as good as new, and
// reports whether it did.
func (s *Spool) spare(path string) bool {
	s.mu.Lock()
	full := len(s.spares.files) >= maxSpares
	s.spares.made++
	spare := filepath.Join(s.spares.dir, fmt.Sprint(s.spares.made))
	s.mu.Unlock()
	if full || !isUnused(path) || unix.Rename(path, spare) != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spares.files = append(s.spares.files, spare)
	return true
}
