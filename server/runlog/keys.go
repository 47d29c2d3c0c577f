package runlog

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strconv"
	"strings"
)

// Remove deletes logs, whatever their state, and all that is remembered of them.
// Those who follow get [ErrRemoved]. What does not exist is no error. A power
// cut may bring a file back; retention will meet it again in [Store.Keys].
func (s *Store) Remove(ks ...Key) error {
	var errs []error
	for _, k := range ks {
		if err := s.remove(k); err != nil {
			errs = append(errs, fmt.Errorf("remove log %v: %w", k, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Store) remove(k Key) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.calls.Done()
	a, err := s.hold(k)
	if err != nil {
		return err
	}
	defer s.drop(a)
	a.turn <- struct{}{}
	defer func() { <-a.turn }()
	if a.gone {
		return nil
	}
	for _, path := range []string{a.beside(suffixCopy), a.path, a.beside(suffixSuspect)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	s.mu.Lock()
	a.gone = true
	delete(s.logs, k)
	s.empty.Remove(k)
	s.whole.Remove(k)
	victims := s.retireLocked(a)
	a.tellLocked()
	s.mu.Unlock()
	s.closeAll(victims)
	return nil
}

// Keys walks over the logs that have a file, in no order that means anything.
// What is appended or removed meanwhile may or may not be seen. An error ends the
// walk. Attempts that printed nothing have no file.
func (s *Store) Keys() iter.Seq2[Key, error] {
	return func(yield func(Key, error) bool) {
		for i := range s.shards {
			if !s.walk(s.shards[i].path, yield) {
				return
			}
		}
	}
}

// walk reads one directory in pieces, so that memory does not grow with the
// number of logs.
func (s *Store) walk(dir string, yield func(Key, error) bool) bool {
	d, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return true
	}
	if err != nil {
		yield(Key{}, fmt.Errorf("list logs: %w", err))
		return false
	}
	defer s.closeAll([]*os.File{d})
	for {
		names, err := d.Readdirnames(256)
		for _, name := range names {
			if k, ok := keyOf(name); ok && !yield(k, nil) {
				return false
			}
		}
		if errors.Is(err, io.EOF) {
			return true
		}
		if err != nil {
			yield(Key{}, fmt.Errorf("list logs: %w", err))
			return false
		}
	}
}

// keyOf is the inverse of the file name. Other files are not ours.
func keyOf(name string) (Key, bool) {
	base, ok := strings.CutSuffix(name, suffix)
	parts := strings.Split(base, ".")
	if !ok || len(parts) != 3 {
		return Key{}, false
	}
	n, err := strconv.ParseUint(parts[1], 10, 32)
	fence, err2 := strconv.ParseUint(parts[2], 10, 64)
	k := Key{Run: parts[0], Attempt: uint32(n), Fence: fence}
	return k, err == nil && err2 == nil && k.Check() == nil && k.String() == base
}
