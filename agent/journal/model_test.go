package journal

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const name = "dir/journal"

var epoch = time.Date(2026, 3, 29, 1, 59, 59, 123456789, time.UTC)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// view is what a journal knows, in a form that can be compared.
type view struct {
	Entries []Entry
	Acked   map[Key]uint64
}

func viewOf(es []Entry, j *Journal) view { return view{es, j.table.acked} }

// remember is the model: what a list of records adds up to.
func remember(recs []Record) view {
	t := view{Entries: []Entry{}, Acked: map[Key]uint64{}}
	entries := map[Key]*Entry{}
	for _, r := range recs {
		if _, gone := t.Acked[r.Key]; gone {
			continue
		}
		if entries[r.Key] == nil {
			entries[r.Key] = &Entry{Key: r.Key, Fence: r.Fence}
		}
		switch e := entries[r.Key]; r.Kind {
		case Accepted:
			e.Accepted = &r
		case Started:
			e.Started = &r
		case Exited:
			e.Exited = &r
		default: // Acked
			delete(entries, r.Key)
			t.Acked[r.Key] = r.Fence
		}
	}
	for fence := range uint64(200) { // in the order of fences, which differ
		for _, e := range entries {
			if e.Fence == fence {
				t.Entries = append(t.Entries, *e)
			}
		}
	}
	return t
}

// life is which kinds may follow which.
var life = map[string][]Kind{
	"":                               {Accepted},
	"accepted ":                      {Started, Exited},
	"accepted started ":              {Exited},
	"accepted exited ":               {Acked},
	"accepted started exited ":       {Acked},
	"accepted exited acked ":         nil,
	"accepted started exited acked ": nil,

	// What a torn write took the first steps of.
	"started ":        {Exited},
	"exited ":         {Acked},
	"started exited ": {Acked},
}

func legal(history []Record, r Record) bool {
	for _, h := range history {
		if h.Key == r.Key && h.Fence != r.Fence {
			return false
		}
	}
	return slices.Contains(life[past(history, r.Key)], r.Kind)
}

func past(history []Record, k Key) (kinds string) {
	for _, h := range history {
		if h.Key == k {
			kinds += h.Kind.String() + " "
		}
	}
	return kinds
}

func allLegal(history, recs []Record) bool {
	for i, r := range recs {
		if !legal(append(slices.Clip(history), recs[:i]...), r) {
			return false
		}
	}
	return true
}

// genRecords draws a call. Most of it is what may come next, so that attempts
// get to the end of their lives and the file to be rewritten.
func genRecords(t *rapid.T, history []Record) (recs []Record) {
	for range rapid.IntRange(1, 3).Draw(t, "records") {
		r := genRecord(t)
		odds := rapid.IntRange(0, 9).Draw(t, "any kind")
		next := life[past(append(slices.Clip(history), recs...), r.Key)]
		if odds > 0 && len(next) > 0 {
			r.Kind = next[len(next)-1]
		}
		recs = append(recs, r)
	}
	return recs
}

func genRecord(t *rapid.T) Record {
	run := rapid.IntRange(0, 15).Draw(t, "run")
	fence := uint64(10 * (run + 1))
	if rapid.IntRange(0, 19).Draw(t, "other fence") == 0 {
		fence++
	}
	var payload []byte // nil when empty, as it is read back
	if n := rapid.SampledFrom([]int{0, 3, 100, 200}).Draw(t, "payload"); n > 0 {
		payload = bytes.Repeat([]byte{0xa5}, n)
	}
	return Record{
		Kind:    rapid.SampledFrom([]Kind{Accepted, Started, Exited, Acked}).Draw(t, "kind"),
		Key:     Key{fmt.Sprintf("run-%d", run/2), uint32(1 + run%2)},
		Fence:   fence,
		Time:    epoch.Add(time.Duration(run) * time.Hour),
		Payload: payload,
	}
}

func openMem(t interface {
	Helper()
	Fatal(...any)
}, d *memDisk,
) (*Journal, []Entry) {
	t.Helper()
	j, es, err := openOn(d, name, quiet())
	if err != nil {
		t.Fatal(err)
	}
	j.compactMin = 300
	return j, es
}

// Whatever is appended, whenever the power fails and whatever the disk made of
// what was not synced: what is found again is all that was acknowledged. Of the call
// that was under way, and of what was only noted since, the power may take any record,
// and a crash of the process nothing that was noted.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newMemDisk()
		d.makes = rapid.SampledFrom([]int64{0, 100, 1000}).Draw(t, "room at a time")
		j, _ := openMem(t, d)
		var history []Record
		durable := 0 // records of it that were there at the last Append
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			recs := genRecords(t, history)
			switch rapid.IntRange(0, 9).Draw(t, "fault") {
			case 0:
				d.left = rapid.IntRange(0, 12).Draw(t, "power fails after")
			case 1:
				d.room = rapid.IntRange(0, 200).Draw(t, "room")
			}
			add, noted := j.Append, rapid.Bool().Draw(t, "only note")
			if noted {
				add = j.Note
			}
			err := add(recs...)
			j.wg.Wait() // the compaction, so that a failure shrinks well
			switch ok := allLegal(history, recs); {
			case err == nil && !ok:
				t.Fatalf("took %v after %v", recs, history)
			case err == nil:
				history = append(history, recs...)
				if !noted {
					durable = len(history)
				}
			case ok && d.left != 0 && d.room < 0:
				t.Fatalf("refused %v after %v: %v", recs, history, err)
			}
			if d.left == 0 || rapid.IntRange(0, 9).Draw(t, "restart") == 0 {
				inFlight := recs
				if err == nil || !allLegal(history, recs) {
					inFlight = nil
				}
				if d.left, d.room = -1, -1; rapid.Bool().Draw(t, "power fails") { // and not the process alone
					d = d.crash(func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "kept") })
				} else {
					durable = len(history)
				}
				j, history = reopen(t, d, history[:durable], append(slices.Clip(history[durable:]), inFlight...))
				durable = len(history)
			}
			d.left, d.room = -1, -1
		}
	})
}

// reopen opens d and returns which history it holds: all of history, and of doubtful
// what is there.
func reopen(t *rapid.T, d *memDisk, history, doubtful []Record) (*Journal, []Record) {
	j, es := openMem(t, d)
	got := viewOf(es, j)
	h := slices.Clip(history)
	for _, r := range doubtful {
		if got.holds(r) {
			h = append(h, r)
		}
	}
	if diff := cmp.Diff(remember(h), got); diff != "" {
		t.Fatalf("found again, besides what need not be there (%v):\n%s", doubtful, diff)
	}
	return j, h
}

// holds reports whether r is there. Of an attempt that is acknowledged nothing else counts.
func (v view) holds(r Record) bool {
	if fence, gone := v.Acked[r.Key]; gone {
		return r.Kind == Acked && r.Fence == fence
	}
	for _, e := range v.Entries {
		if e.Key == r.Key && r.Kind != Acked {
			there := *e.step(r.Kind)
			return there != nil && cmp.Equal(*there, r)
		}
	}
	return false
}
