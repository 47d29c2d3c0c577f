package remote

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/schedd/schedd/agent/journal"
	"github.com/schedd/schedd/agent/runner"
	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// Whatever a former runner has written of an attempt: it is taken up once, as one that has
// ended or as one that is lost, and what that one says is what is told. Processes are
// looked for only by marks that are on record, and not after a reboot.
func FuzzBook(f *testing.F) {
	start := func(b begun) []byte {
		payload, err := json.Marshal(b)
		if err != nil {
			f.Fatal(err)
		}
		return payload
	}
	end := func(m *runnerv1.Exit) []byte {
		payload, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return payload
	}
	whole := start(begun{Boot: "b1", Marks: []string{"SCHEDD_RUN_ID=x", "SCHEDD_ATTEMPT=1", "SCHEDD_WORKER=w"}, PID: 4711, Started: time.Unix(1e9, 0)})
	f.Add(whole, []byte(nil), false, "b1")
	f.Add(whole, []byte(nil), false, "b2")
	f.Add(whole, end(&runnerv1.Exit{Code: 3, Reason: "because"}), true, "b1")
	f.Add(whole, []byte{0xff}, true, "b1")
	f.Add(whole[:20], []byte(nil), false, "b1")
	f.Add([]byte(`{"pid":-1,"marks":["",""],"started":"0000-01-01T00:00:00Z"}`), []byte(nil), false, "")
	f.Add([]byte(`null`), end(&runnerv1.Exit{}), false, "b1")
	f.Add([]byte(nil), []byte(nil), true, "b1")
	dir, quiet := f.TempDir(), slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, accepted, exited []byte, isOver bool, boot string) {
		path := filepath.Join(dir, journalFile)
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		j, _, err := journal.Open(path, quiet)
		if err != nil {
			t.Fatal(err)
		}
		recs := []journal.Record{record(journal.Accepted, "x", accepted)}
		if isOver {
			recs = append(recs, record(journal.Exited, "x", exited))
		}
		if err := j.Note(recs...); err != nil {
			_ = j.Close()
			return // what the journal does not take, nobody reads
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		b, ended, left, err := openBook(dir, boot, quiet)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.journal.Close(); err != nil {
			t.Fatal(err)
		}
		if len(ended)+len(left) != 1 {
			t.Fatalf("of one attempt %d have ended and %d are lost", len(ended), len(left))
		}
		m := new(runnerv1.Exit)
		sound := isOver && proto.Unmarshal(exited, m) == nil
		exit, is := ended["x"]
		switch {
		case is != sound:
			t.Fatalf("its end is on record: %v, and is taken up: %v", sound, is)
		case is && exit != readExit(m):
			t.Fatalf("it ended as %v, and %+v is told", m, exit)
		case !is:
			checkLost(t, left[0], accepted, boot)
		}
	})
}

func checkLost(t *testing.T, l lost, accepted []byte, boot string) {
	t.Helper()
	var was begun
	err := json.Unmarshal(accepted, &was)
	switch rebooted := err == nil && was.Boot != "" && boot != "" && was.Boot != boot; {
	case l.id != "x" || l.reason == "":
		t.Fatalf("%+v is told of it", l)
	case err != nil && (l.strays || !strings.Contains(l.reason, "damaged")):
		t.Fatalf("its record can't be read, and %+v is told", l)
	case err == nil && (l.strays == rebooted || !slices.Equal(l.marks, was.Marks)):
		t.Fatalf("by its record %+v, in boot %q, it is %+v", was, boot, l)
	case l.strays && len(l.marks) == 0:
		if n, err := new(runner.Local).EndStrays("x", l.marks); n != 0 || err == nil {
			t.Fatalf("without a mark %d processes were ended: %v", n, err)
		}
	}
}
