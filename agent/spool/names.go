package spool

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// Key names one attempt. Run is 1 to 128 of a-z, 0-9 and "-", since it becomes
// a file name; Attempt counts from 1.
type Key struct {
	Run     string
	Attempt uint32
}

func (k Key) check() error {
	const all = "abcdefghijklmnopqrstuvwxyz0123456789-"
	if k.Run == "" || len(k.Run) > 128 || strings.Trim(k.Run, all) != "" || k.Attempt == 0 {
		return fmt.Errorf("%w key", ErrInvalid)
	}
	return nil
}

func checkLimit(limit int64) error {
	if limit < MinLimit || limit > 1<<60 {
		return fmt.Errorf("%w limit of %d bytes, not from %d to 2^60", ErrInvalid, limit, MinLimit)
	}
	return nil
}

// The files of an attempt are <run>.<attempt>.<limit>.log and <run>.<attempt>.meta. A
// former version had <run>.<attempt>.log, and the limit in the sidecar that each log had.
const (
	logSuffix  = ".log"
	metaSuffix = ".meta"
	tempSuffix = ".new" // behind the name of a sidecar that is being made
)

func (k Key) base() string { return k.Run + "." + strconv.FormatUint(uint64(k.Attempt), 10) }

func (k Key) formerLogName() string { return k.base() + logSuffix }

func (k Key) metaName() string { return k.base() + metaSuffix }

func (k Key) logName(limit int64) string {
	return k.base() + "." + strconv.FormatInt(limit, 10) + logSuffix
}

func (s *Spool) newLog(k Key, limit int64) *Log {
	l := &Log{spool: s, key: k, meta: meta{limit: limit}, turn: make(chan struct{}, 1)}
	l.path = l.ownPath(limit)
	return l
}

// ownPath is where the log is that has a name of its own.
func (l *Log) ownPath(limit int64) string { return filepath.Join(l.spool.dir, l.key.logName(limit)) }

// parseName takes a file's name apart; kind is empty for one that none of these makes,
// and the limit is 0 if the name has none.
func parseName(name string) (k Key, limit int64, kind string) {
	parts := strings.Split(name, ".")
	if len(parts) < 3 {
		return Key{}, 0, ""
	}
	attempt, _ := strconv.ParseUint(parts[1], 10, 32)
	limit, _ = strconv.ParseInt(parts[2], 10, 64)
	k = Key{parts[0], uint32(attempt)}
	switch {
	case k.check() != nil:
	case name == k.formerLogName():
		return k, 0, logSuffix
	case name == k.metaName():
		return k, 0, metaSuffix
	case name == k.metaName()+tempSuffix:
		return k, 0, tempSuffix
	case checkLimit(limit) == nil && name == k.logName(limit):
		return k, limit, logSuffix
	}
	return Key{}, 0, ""
}
