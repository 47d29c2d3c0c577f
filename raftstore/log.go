package raftstore

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// raftLog hands what Raft says to slog. Raft tells an operator more than one
// wants to know of each election and each peer that does not answer, so all but
// its errors is for debugging; what matters the store says itself. And its errors
// are mostly of the kind that heals, so they are warnings. Those that it repeats
// many times a second, for as long as a primary is down, are told once a minute.
type raftLog struct {
	log  *slog.Logger
	name string
	args []any // what With has added
	told *told
}

func newRaftLog(l *slog.Logger) hclog.Logger {
	return &raftLog{log: l.With("part", "raft"), told: &told{at: map[string]time.Time{}}}
}

// tellAgain is how soon the same warning about the same primary is told again.
const tellAgain = time.Minute

// told remembers what was told when.
type told struct {
	mu sync.Mutex
	at map[string]time.Time
}

// lately tells whether a warning was told within the last [tellAgain], and notes
// that it is told now otherwise.
func (t *told) lately(msg string, args []any, now time.Time) bool {
	for i := 0; i+1 < len(args); i += 2 {
		if k := args[i]; k == "peer" || k == "target" {
			msg += fmt.Sprint(args[i+1])
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if at, ok := t.at[msg]; ok && now.Sub(at) < tellAgain {
		return true
	}
	if len(t.at) >= maxTold {
		clear(t.at)
	}
	t.at[msg] = now
	return false
}

// maxTold bounds what is remembered: some kinds of warnings, about some primaries.
const maxTold = 1000

func (l *raftLog) Log(level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	if level >= hclog.Error && !l.told.lately(msg, args, time.Now()) {
		to = slog.LevelWarn
	}
	if !l.log.Enabled(context.Background(), to) {
		return
	}
	attrs := append(slices.Clip(l.args), args...)
	for i, a := range attrs {
		if f, ok := a.(hclog.Format); ok { // hclog's own way to say Sprintf
			attrs[i] = format(f)
		}
	}
	l.log.Log(context.Background(), to, msg, attrs...) //nolint:sloglint // the message is Raft's
}

func format(f hclog.Format) any {
	if s, ok := f[0].(string); ok {
		return fmt.Sprintf(s, f[1:]...)
	}
	return f
}

func (l *raftLog) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *raftLog) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLog) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLog) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLog) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *raftLog) IsTrace() bool { return false }
func (l *raftLog) IsDebug() bool { return l.log.Enabled(context.Background(), slog.LevelDebug) }
func (l *raftLog) IsInfo() bool  { return l.IsDebug() }
func (l *raftLog) IsWarn() bool  { return l.IsDebug() }
func (l *raftLog) IsError() bool { return l.log.Enabled(context.Background(), slog.LevelWarn) }

func (l *raftLog) ImpliedArgs() []any { return l.args }

func (l *raftLog) With(args ...any) hclog.Logger {
	return &raftLog{log: l.log, name: l.name, args: append(slices.Clip(l.args), args...), told: l.told}
}

func (l *raftLog) Name() string                        { return l.name }
func (l *raftLog) Named(name string) hclog.Logger      { return l.ResetNamed(l.name + "." + name) }
func (l *raftLog) ResetNamed(name string) hclog.Logger { return &raftLog{l.log, name, l.args, l.told} }

func (l *raftLog) SetLevel(hclog.Level)  {} // slog has its own
func (l *raftLog) GetLevel() hclog.Level { return hclog.Debug }

func (l *raftLog) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return slog.NewLogLogger(l.log.Handler(), slog.LevelDebug).Writer()
}

func (l *raftLog) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.log.Handler(), slog.LevelDebug)
}
