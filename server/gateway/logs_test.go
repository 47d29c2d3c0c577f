package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/server/gateway"
	"github.com/schedd/schedd/server/runlog"
)

// Output is acknowledged when it is durable, and not before.
func TestLogAckOnlyAfterSync(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		p.logs.hold()
		w.say(output("r", 0, []byte("hello ")))
		w.say(output("r", 6, []byte("world")))
		w.say(&agentv1.Ping{Seq: 1})
		// An hour of a disk that does not answer: pings are answered at once, and
		// nothing is acknowledged.
		began := time.Now()
		for seq := uint64(1); seq < 100; seq++ {
			if got := w.expect("Pong").GetPong().GetSeq(); got != seq || !time.Now().Equal(began) {
				t.Fatalf("pong %d after %v, want %d at once", got, time.Since(began), seq)
			}
			time.Sleep(40 * time.Second)
			began = time.Now()
			w.say(&agentv1.Ping{Seq: seq + 1})
		}
		w.expect("Pong")
		p.logs.release()
		var last *agentv1.LogAck
		for last.GetDurable() < 11 {
			last = w.expect("LogAck").GetLogAck()
		}
		want := &agentv1.LogAck{Key: attempt("r"), Durable: 11, Known: 11, Credit: wire.LogCredit}
		if diff := cmp.Diff(want, last, protocmp.Transform()); diff != "" {
			t.Errorf("LogAck (-want +got):\n%s", diff)
		}
	})
}

// The positions are all that counts: twice is once, and a hole is answered with
// where it begins.
func TestLogOffsets(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		for _, step := range []struct {
			name   string
			offset int64
			data   string
			known  int64
		}{
			{"the beginning", 0, "abc", 3},
			{"again", 0, "abc", 3},
			{"overlapping", 2, "cde", 5},
			{"beyond the end", 9, "xyz", 5},
			{"a question", 0, "", 5},
		} {
			w.say(output("r", step.offset, []byte(step.data)))
			a := w.expect("LogAck").GetLogAck()
			if a.GetKnown() != step.known || a.GetDurable() != step.known || a.GetError() != "" {
				t.Errorf("%s: got %v, want %d known and durable", step.name, a, step.known)
			}
		}
		if got := string(p.logs.bytes[runlog.Key{Run: "r", Attempt: 1}]); got != "abcde" {
			t.Errorf("log %q, want abcde", got)
		}
	})
}

// Trouble with one log is told, and the session lives on.
func TestLogErrors(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		w.say(output("r", 0, []byte("abc")))
		w.expect("LogAck")

		var a *agentv1.LogAck
		for _, size := range []int{3, wire.MaxLogChunk} {
			damaged := output("r", 3, make([]byte, size))
			damaged.Crc32C++
			w.say(damaged)
			a = w.expect("LogAck").GetLogAck()
			if a.GetKnown() != 3 || a.GetDurable() != 3 || !strings.Contains(a.GetError(), fmt.Sprintf("the %d bytes at offset 3 came with another checksum", size)) {
				t.Errorf("%d bytes damaged: got %v, want an error and 3 bytes", size, a)
			}
		}

		p.logs.fail(errors.New("write log r.1: no space left on device"))
		for range 3 {
			w.say(output("r", 3, []byte("def")))
			a = w.expect("LogAck").GetLogAck()
			if a.GetKnown() != 3 || !strings.Contains(a.GetError(), "no space left") {
				t.Errorf("disk full: got %v, want an error and 3 bytes", a)
			}
		}
		if got := p.log.with("output not kept"); len(got) != 1 {
			t.Errorf("log lines %q, want one a minute", got)
		}

		p.logs.fail(nil)
		w.say(output("r", 3, []byte("def")))
		if a = w.expect("LogAck").GetLogAck(); a.GetDurable() != 6 || a.GetError() != "" {
			t.Errorf("space again: got %v, want 6 bytes and no error", a)
		}
		if got := p.Stats(); got.LogErrors != 5 || got.LogBytes != 6 || got.Violations != 0 {
			t.Errorf("stats %+v, want 5 errors and 6 bytes", got)
		}
	})
}

// Output that contradicts the record of its attempt is refused for good: that of a copy of
// the worker, which was heard first, is the one that counts.
func TestLogOfATwinIsRefused(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		p.logs.fail(fmt.Errorf("append to log r.1.0 up to 6, sealed at 3: %w", runlog.ErrSealed))
		for range 3 {
			w.say(output("r", 0, []byte("abcdef")))
			if a := w.expect("LogAck").GetLogAck(); !a.GetRefused() || !strings.Contains(a.GetError(), "sealed at 3") {
				t.Errorf("got %v, want that it is refused, and why", a)
			}
		}
		if got := p.log.with("output refused"); len(got) != 1 {
			t.Errorf("log lines %q, want one a minute", got)
		}
		p.logs.fail(errors.New("no space left on device"))
		w.say(output("r", 0, []byte("abcdef")))
		if a := w.expect("LogAck").GetLogAck(); a.GetRefused() || a.GetError() == "" {
			t.Errorf("got %v, want an error that may pass", a)
		}
	})
}

// A worker writes in the logs of its own attempts, and in no other's.
func TestLogsOfOthers(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		mine := output("mine", 0, []byte("abc"))
		mine.Key.Fence = 5
		w.say(mine)
		if a := w.expect("LogAck").GetLogAck(); a.GetDurable() != 3 || a.GetError() != "" || a.GetKey().GetFence() != 5 {
			t.Errorf("its own: got %v, want 3 bytes of fence 5", a)
		}
		w.say(output("mine", 3, []byte("of another fence")))
		if a := w.expect("LogAck").GetLogAck(); a.GetKnown() != 0 || !strings.Contains(a.GetError(), "attempt mine.1.0 was not given to worker") {
			t.Errorf("its own, in a state that is forgotten: got %v, want an error", a)
		}
		w.say(output("another", 0, []byte("abc")))
		if a := w.expect("LogAck").GetLogAck(); a.GetKnown() != 0 || !strings.Contains(a.GetError(), "not given to worker") {
			t.Errorf("another's: got %v, want an error", a)
		}
		if len(p.logs.bytes) != 1 {
			t.Errorf("%d logs were written, want 1", len(p.logs.bytes))
		}
	}, func(c *gateway.Config) {
		c.Owns = func(_ context.Context, _ string, k runlog.Key) bool { return k.Run == "mine" && k.Fence == 5 }
	})
}

// Damage is not hidden by what a chunk is merged with.
func TestDamagedChunkIsNeverWritten(t *testing.T) {
	for _, which := range []int{0, 1, 2} {
		t.Run(fmt.Sprint("chunk ", which), func(t *testing.T) {
			story(t, func(t *testing.T, p *primary) {
				w := p.connect(t, 1)
				p.logs.hold()
				w.say(output("r", 0, []byte("ok"))) // keeps the disk busy
				synctest.Wait()
				for i := range 3 {
					c := output("r", int64(2+2*i), []byte("ok"))
					if i == which {
						c.Data = []byte("no") // with the checksum of what was meant
					}
					w.say(c)
				}
				synctest.Wait()
				p.logs.release()
				a := w.expect("LogAck").GetLogAck()
				if a.GetError() == "" { // of what came before
					a = w.expect("LogAck").GetLogAck()
				}
				if want := int64(2 + 2*which); a.GetKnown() != want || a.GetDurable() != want || !strings.Contains(a.GetError(), "checksum") {
					t.Errorf("got %v, want an error and %d bytes", a, want)
				}
				if got := string(p.logs.bytes[runlog.Key{Run: "r", Attempt: 1}]); got != strings.Repeat("ok", 1+which) {
					t.Errorf("log %q, want what came before the damage", got)
				}
			})
		})
	}
}

// A worker may have its credit on the way, and as much again when it was told to
// go back. More is a flood.
func TestCredit(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		p.logs.stop()
		defer p.logs.release()
		full := make([]byte, wire.LogChunk)
		for i := range 2 * wire.LogCredit / wire.LogChunk {
			w.say(output("r", int64(i%8*wire.LogChunk), full))
		}
		w.say(&agentv1.Ping{})
		w.expect("Pong")
		w.say(output("r", 0, []byte("x")))
		last, code := w.expectEnd()
		if !strings.Contains(last.GetReject().GetReason(), "more output than its credit") || code != codes.ResourceExhausted {
			t.Errorf("got %v, then %v; want a Reject that tells of credit, then %v", last, code, codes.ResourceExhausted)
		}
	})
}

// Credit comes back with the acknowledgement: a worker that waits for it may send
// as much as it likes.
func TestCreditComesBack(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		chunk := make([]byte, wire.LogChunk)
		sent := int64(0)
		for acked := int64(0); acked < 4<<20; {
			for sent-acked <= wire.LogCredit-wire.LogChunk {
				w.say(output("r", sent, chunk))
				sent += wire.LogChunk
			}
			acked = w.expect("LogAck").GetLogAck().GetDurable()
		}
	})
}

// How much a worker may send depends on the line, and not on how long the disk takes to
// sync: while it does, what has come is acknowledged as known. Only so much, though.
func TestKnownBeforeItIsDurable(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		p.logs.hold()
		chunk := make([]byte, wire.LogChunk)
		sent, known := int64(0), int64(0)
		for known < 15<<20 {
			for sent-known <= wire.LogCredit-wire.LogChunk {
				w.say(output("r", sent, chunk))
				sent += wire.LogChunk
			}
			a := w.expect("LogAck").GetLogAck()
			if a.GetDurable() != 0 || a.GetError() != "" || a.GetKnown() <= known {
				t.Fatalf("with %d bytes known, got %v; want more of them, and none durable", known, a)
			}
			known = a.GetKnown()
		}
		for range 2 << 20 / wire.LogChunk {
			w.say(output("r", sent, chunk))
			sent += wire.LogChunk
		}
		last, code := w.expectEnd()
		if !strings.Contains(last.GetReject().GetReason(), "more output than its credit") {
			t.Errorf("with 16 MiB that are not durable: got %v, then %v; want a Reject that tells of credit", last, code)
		}
	})
}

// The disk is asked once for output that comes in bulk, and at once for a few lines.
func TestBulkGathers(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		w.say(output("few", 0, []byte("lines")))
		synctest.Wait()
		if got := p.logs.synced(); got != 1 {
			t.Fatalf("a few lines came: the disk was asked %d times, want 1", got)
		}
		w.expect("LogAck")

		const chunks, gathering = 3, 10 * time.Millisecond // fewer than are acknowledged before they are durable
		begun := time.Now()
		for i := range int64(chunks) {
			w.say(output("bulk", i*wire.LogChunk, make([]byte, wire.LogChunk)))
			synctest.Wait()
			time.Sleep(gathering / (chunks + 1))
		}
		if got := w.expect("LogAck").GetLogAck(); got.GetDurable() != chunks*wire.LogChunk || p.logs.synced() != 2 {
			t.Errorf("the disk was asked %d times for bulk, and keeps %v; want all of it at once", p.logs.synced()-1, got)
		}
		if took := time.Since(begun); took != gathering {
			t.Errorf("bulk was durable after %v, want %v", took, gathering)
		}
	})
}

// A sync that has made durable what came while it was under way is answered once: an
// answer without news would say that what the worker sent since has left a hole.
func TestNoAnswerWithoutNews(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		p.logs.hold()
		p.logs.eager()
		chunk := make([]byte, wire.LogChunk)
		for i := range int64(wire.LogCredit / wire.LogChunk) {
			w.say(output("r", i*wire.LogChunk, chunk))
			synctest.Wait()
		}
		p.logs.release()
		synctest.Wait()
		w.say(&agentv1.Ping{Seq: 1})
		known, durable := int64(0), int64(0)
		for {
			m, err := w.hear()
			if err != nil {
				t.Fatal(err)
			}
			a := m.GetLogAck()
			if a == nil {
				break // the Pong
			}
			if a.GetKnown() <= known && a.GetDurable() <= durable {
				t.Errorf("got %v, with %d bytes known and %d durable already", a, known, durable)
			}
			known, durable = a.GetKnown(), a.GetDurable()
		}
	})
}

// A question is free, but not without limit.
func TestTooManyQuestions(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		p.logs.hold()
		for i := range 1<<14 + 65 { // up to 64 are taken off before the disk is waited for
			w.say(output(fmt.Sprint("r", i), 0, nil))
		}
		last, code := w.expectEnd()
		if !strings.Contains(last.GetReject().GetReason(), "more chunks of output than can wait") || code != codes.ResourceExhausted {
			t.Errorf("got %v, then %v; want a Reject that tells of chunks", last, code)
		}
	})
}

// A job that prints a byte at a time does not write to disk a byte at a time.
func TestSmallChunksAreMerged(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		p.logs.hold()
		text := strings.Repeat("0123456789", 1000)
		for i, b := range []byte(text) {
			w.say(output("r", int64(i), []byte{b}))
			if i == 0 {
				synctest.Wait() // the disk is busy from now on
			}
		}
		synctest.Wait()
		p.logs.release()
		synctest.Wait()
		if got := w.expect("LogAck").GetLogAck(); got.GetDurable() < 10_000 {
			got = w.expect("LogAck").GetLogAck()
			if got.GetDurable() != 10_000 {
				t.Errorf("got %v, want the other 9999 bytes in one answer", got)
			}
		}
		if got := string(p.logs.bytes[runlog.Key{Run: "r", Attempt: 1}]); got != text || p.logs.calls != 2 {
			t.Errorf("log of %d bytes in %d appends, want the text in 2", len(got), p.logs.calls)
		}
	})
}

// A kill reaches a worker on a slow line before launches that were there first,
// and both before acknowledgements of a flood of output.
func TestKillOvertakes(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		p.clog(t, w)
		for i := range 100 {
			w.say(output(fmt.Sprint("flood-", i), 0, []byte("output")))
		}
		w.say(&agentv1.Ping{Seq: 1})
		synctest.Wait()
		p.Send(w.id, w.hello.GetSessionEpoch(), kill("clog"))

		var order []string
		for range 30 + 1 + 100 + 1 {
			m, err := w.hear()
			if err != nil {
				t.Fatal(err)
			}
			order = append(order, kindOf(m))
		}
		// What was handed to gRPC before the kill came is on its way, the rest is not.
		last := slices.Index(order, "LogAck") - 1
		if at := slices.Index(order, "Kill"); at < 0 || last-at < 20 {
			t.Errorf("the kill came as number %d, and the last launch as %d: %q", at, last, order)
		}
		if slices.Contains(order[:last], "LogAck") || slices.Contains(order[last+1:], "Launch") {
			t.Errorf("want all launches before all acknowledgements: %q", order)
		}
	})
}

// Two streams of one worker, for a moment side by side, and real files.
func TestLogsOnDisk(t *testing.T) {
	dir := t.TempDir()
	var store *runlog.Store
	text := make([]byte, 300_000)
	rng := rand.NewChaCha8([32]byte{1})
	if _, err := rng.Read(text); err != nil {
		t.Fatal(err)
	}
	story(t, func(t *testing.T, p *primary) {
		ship := func(w *worker, from, to int64) (durable int64) {
			for sent := from; durable < to; {
				for sent < to && sent-max(durable, from) < wire.LogCredit-wire.LogChunk {
					n := min(to-sent, 1+int64(rng.Uint64()%wire.LogChunk))
					w.say(output("r", sent, text[sent:sent+n]))
					sent += n
				}
				m, err := w.hear()
				if err != nil {
					return durable
				}
				durable = max(durable, m.GetLogAck().GetDurable())
			}
			return durable
		}
		done := ship(p.connect(t, 1, epoch(1)), 0, 150_000)
		again := max(done-20_000, 0) // it does not remember all that was acknowledged
		ship(p.connect(t, 1, epoch(2)), again, int64(len(text)))

		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
		got := make([]byte, len(text))
		if n, err := store.Read(runlog.Key{Run: "r", Attempt: 1}, got, 0); err != nil || !bytes.Equal(got, text) {
			t.Errorf("read %d bytes, %v; equal: %v", n, err, bytes.Equal(got, text))
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}, func(c *gateway.Config) {
		var err error
		if store, err = runlog.Open(dir, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		c.Logs = store
	})
}
