package remote

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/agent/journal"
	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
)

// picky is a journal that refuses the records of one attempt, and with them all that are to
// be written together.
type picky struct {
	disk

	refuses string
	calls   int
}

func (p *picky) Note(recs ...journal.Record) error {
	p.calls++
	for _, r := range recs {
		if r.Key.Run == p.refuses {
			return fmt.Errorf("append: %w", journal.ErrOrder)
		}
	}
	return p.disk.Note(recs...)
}

// What ends in quick succession is written down together, before it is told. One that the
// journal refuses keeps no other from being on record.
func TestEndsShareARecord(t *testing.T) {
	for _, c := range []struct {
		name    string
		refuses string
		calls   int // of the journal, for eight ends
		kept    int // records: that each was started, and how it ended
	}{
		{"all are new", "", 5, 16}, // the first four come alone
		{"one is refused", "6", 9, 14},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ends := map[string]time.Duration{}
				for i := range 8 {
					ends[fmt.Sprint(i)] = time.Duration(i+1) * time.Millisecond
				}
				fake := fakerunner.New(func(s runner.Spec) fakerunner.Behaviour { return fakerunner.Behaviour{Duration: ends[s.ID]} })
				defer fake.Close()
				log := slog.New(slog.DiscardHandler)
				p := &picky{refuses: c.refuses}
				k := newKeeper(log, fake, &book{log: log, journal: p})
				w, err := k.take(1, 1)
				if err != nil {
					t.Fatal(err)
				}
				for id := range ends {
					if _, err := k.start(asker{life: 1}, runner.Spec{ID: id}); err != nil {
						t.Fatal(err)
					}
				}
				k.news(w)
				time.Sleep(20 * time.Millisecond)
				synctest.Wait()
				if p.calls != c.calls || len(p.kept) != c.kept {
					t.Errorf("%d calls of the journal kept %d records, want %d and %d", p.calls, len(p.kept), c.calls, c.kept)
				}
				told := ids(k.news(w))
				if slices.Sort(told); !slices.Equal(told, []string{"0", "1", "2", "3", "4", "5", "6", "7"}) {
					t.Errorf("told of %v", told)
				}
				for _, a := range k.attempts {
					if a.exit == nil || !a.written {
						t.Errorf("of attempt %s it knows %+v", a.id, a)
					}
				}
				close(k.over)
				k.wg.Wait()
			})
		})
	}
}
