package api

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/schedd/schedd/raftstore"
)

// leaderless is a group without a leader, and without news.
type leaderless struct{ Group }

func (leaderless) WatchLeader() (<-chan struct{}, func()) { return nil, func() {} }

// Nobody knows what became of the first try, and later ones found no leader. What
// became of the call is not known.
func TestDoubtIsNotForgotten(t *testing.T) {
	for name, test := range map[string]struct {
		fates []fate
		want  error
	}{
		"never taken":       {[]fate{untouched}, raftstore.ErrNotLeader},
		"unknown at first":  {[]fate{unknown, untouched}, raftstore.ErrUnknown},
		"unknown meanwhile": {[]fate{untouched, unknown, untouched}, raftstore.ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Config{Group: leaderless{}})
				tries := 0
				err := s.led(t.Context(), true, func() (fate, error) {
					how := test.fates[min(tries, len(test.fates)-1)]
					tries++
					return how, map[fate]error{untouched: raftstore.ErrNotLeader, unknown: raftstore.ErrUnknown}[how]
				})
				if !errors.Is(err, test.want) || tries < 10 || errors.Is(err, context.Canceled) {
					t.Errorf("after %d tries: %v, want %v", tries, err, test.want)
				}
				if test.want == raftstore.ErrUnknown && errors.Is(err, raftstore.ErrNotLeader) { //nolint:errorlint // which of the two it is
					t.Errorf("it says that nothing was done: %v", err)
				}
			})
		})
	}
}
