package session

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"pgregory.net/rapid"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// shelf is logs in memory that grow, break and go.
type shelf struct {
	logs    map[Key][]byte
	durable map[Key]int64
	read    map[Key]bool
	broken  bool // can't be read
}

func newShelf() *shelf {
	return &shelf{logs: map[Key][]byte{}, durable: map[Key]int64{}, read: map[Key]bool{}}
}

func (s *shelf) Unshipped() (keys []Key) {
	for k := range s.logs {
		keys = append(keys, k)
	}
	return keys
}

func (s *shelf) LogSize(k Key) (int64, bool) {
	data, ok := s.logs[k]
	return int64(len(data)), ok
}

func (s *shelf) LogFence(k Key) (uint64, bool) { return fenceOf(k), !s.read[k] }

// fenceOf is that of an attempt on a shelf.
func fenceOf(k Key) uint64 { return 40 + uint64(k.Attempt) }

func (s *shelf) ReadLog(k Key, off int64, parts ...[]byte) (n int, err error) {
	s.read[k] = true
	if s.broken {
		return 0, errors.New("input/output error")
	}
	for log := bytes.NewReader(s.logs[k]); len(parts) > 0 && err == nil; parts = parts[1:] {
		var m int
		m, err = log.ReadAt(parts[0], off+int64(n))
		n += m
	}
	return n, err
}

func (s *shelf) LogDurable(k Key, n int64) { s.durable[k] = max(s.durable[k], n) }

func (s *shelf) LogRefused(k Key, fence uint64, _ string) {
	if fence == fenceOf(k) {
		delete(s.logs, k)
	}
}

// far is the other end: a positional log of each attempt, behind a line that
// keeps the order.
type far struct {
	line  []*agentv1.LogAppend // on their way there
	back  []*agentv1.LogAck    // on their way back
	known map[Key][]byte
}

func (f *far) flight() (n int) {
	for _, m := range f.line {
		n += len(m.GetData())
	}
	return n
}

// arrive takes the first message off the line, and keeps or loses it.
func (f *far) arrive(fate string) {
	if len(f.line) == 0 {
		return
	}
	m := f.line[0]
	f.line = f.line[1:]
	k := keyOf(m.GetKey())
	if m.GetKey().GetFence() != fenceOf(k) {
		panic(fmt.Sprintf("session: output of %v is sent with the fence %d", k, m.GetKey().GetFence()))
	}
	ack := &agentv1.LogAck{Key: m.GetKey()}
	switch have := int64(len(f.known[k])); {
	case fate == "lost":
		return
	case fate == "refused":
		ack.Error = "disk full"
	case fate == "forgotten": // the primary lost what it had
		f.known[k] = f.known[k][:have/2]
	case m.GetOffset() <= have && m.GetOffset()+int64(len(m.GetData())) > have:
		f.known[k] = append(f.known[k], m.GetData()[have-m.GetOffset():]...)
	}
	ack.Known = int64(len(f.known[k]))
	if fate != "slow disk" {
		ack.Durable = ack.Known
	}
	f.back = append(f.back, ack)
}

// Whatever happens on the way, and to the other end, logs arrive byte for byte
// once it has stopped happening, and no more than the credit is on the way.
func TestLogsArriveWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logs := newShelf()
		box := newOutbox()
		credit, most := rapid.Int64Range(1<<10, 200<<10).Draw(t, "credit"), 50_000
		if rapid.IntRange(0, 4).Draw(t, "line") == 0 { // a fast one, with chunks that are as large as any
			credit, most = 1<<20, 500_000
		}
		s := newShipper(logs, box, credit, slog.New(slog.DiscardHandler))
		there := &far{known: map[Key][]byte{}}
		keys := []Key{{"a", 1}, {"b", 1}, {"b", 2}}
		now := time.Unix(0, 0)
		grow := func(k Key, n int) {
			for range n {
				logs.logs[k] = append(logs.logs[k], byte(len(logs.logs[k])/251))
			}
			s.look(k)
		}
		ship := func() {
			for _, m := range s.next(now) {
				there.line = append(there.line, m.GetLogAppend())
			}
		}
		answer := func() {
			if len(there.back) > 0 {
				s.acked(there.back[0], now)
				there.back = there.back[1:]
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"grow": func(t *rapid.T) {
				grow(rapid.SampledFrom(keys).Draw(t, "log"), rapid.IntRange(1, most).Draw(t, "bytes"))
			},
			"ship":   func(*rapid.T) { ship() },
			"answer": func(*rapid.T) { answer() },
			"arrive": func(t *rapid.T) {
				there.arrive(rapid.SampledFrom([]string{"", "", "", "", "lost", "refused", "forgotten", "slow disk"}).Draw(t, "fate"))
			},
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 60).Draw(t, "s")) * time.Second)
				s.remind(now)
			},
			"broken": func(*rapid.T) { logs.broken = !logs.broken },
			"": func(t *rapid.T) {
				if s.flight < 0 || s.flight > credit+int64(len(keys))*questionCost {
					t.Fatalf("%d bytes are counted as on their way, with a credit of %d", s.flight, credit)
				}
			},
		})

		logs.broken = false
		for range 100_000 { // all is well from now on
			before := there.flight()
			ship()
			if len(there.line) > 0 && (before == there.flight() || len(there.line) > 8) {
				there.arrive("")
			}
			answer()
			if len(there.line) == 0 && len(there.back) == 0 {
				if arrived(logs, there) {
					return
				}
				now = now.Add(shipTick)
				s.remind(now)
			}
		}
		t.Fatalf("the logs did not arrive: %d bytes in flight, credit %d", s.flight, credit)
	})
}

func arrived(logs *shelf, there *far) bool {
	for k, want := range logs.logs {
		if !bytes.Equal(there.known[k], want) || logs.durable[k] < int64(len(want)) {
			return false
		}
	}
	return true
}

// On a line where nothing goes wrong each byte goes once, and what the gateway knows is
// asked only of a log of which it may know something.
func TestNothingIsSentTwiceWithoutNeed(t *testing.T) {
	t.Run("fresh", func(t *testing.T) { sendAll(t, false) })
	t.Run("read before", func(t *testing.T) { sendAll(t, true) })
}

func sendAll(t *testing.T, read bool) {
	k := Key{"a", 1}
	logs := newShelf()
	logs.logs[k], logs.read[k] = make([]byte, 1<<20), read
	questions := 0
	if read {
		questions = 1
	}
	s := newShipper(logs, newOutbox(), 0, slog.New(slog.DiscardHandler))
	s.look(k)
	there := &far{known: map[Key][]byte{}}
	now, sent, chunks := time.Unix(0, 0), 0, 0
	for range 1000 {
		for some := s.next(now); some != nil; some = s.next(now) {
			for _, m := range some {
				sent += len(m.GetLogAppend().GetData())
				chunks++
				there.line = append(there.line, m.GetLogAppend())
			}
		}
		if there.flight() > wire.LogCredit {
			t.Fatalf("%d bytes on their way", there.flight())
		}
		there.arrive("slow disk") // an answer now, and one more when it is durable
		if n := len(there.back); n > 0 {
			last := there.back[n-1]
			there.back = append(there.back, &agentv1.LogAck{Key: last.GetKey(), Known: last.GetKnown(), Durable: last.GetKnown()})
		}
		for len(there.back) > 0 {
			s.acked(there.back[0], now)
			there.back = there.back[1:]
		}
	}
	if sent != 1<<20 || chunks != questions+64 {
		t.Errorf("%d bytes in %d messages, want each byte once, in %d questions and 64 chunks", sent, chunks, questions)
	}
}

// A log that will never be taken is not sent again, and the others have its room. One that
// can't be kept at present is asked about again.
func TestRefusedLogIsLeft(t *testing.T) {
	for name, test := range map[string]struct {
		refused bool
		asked   int
	}{"for good": {true, 0}, "at present": {false, 1}} {
		t.Run(name, func(t *testing.T) {
			k := Key{"a", 1}
			logs := newShelf()
			logs.logs[k] = make([]byte, 1000)
			s := newShipper(logs, newOutbox(), 0, slog.New(slog.DiscardHandler))
			s.look(k)
			now := time.Unix(0, 0)
			sent := s.next(now)
			if len(sent) != 1 {
				t.Fatalf("sent %v, want the log", sent)
			}
			s.acked(&agentv1.LogAck{Key: sent[0].GetLogAppend().GetKey(), Error: "sealed at 500", Refused: test.refused}, now)
			asked := 0
			for range 10 {
				now = now.Add(shipTick)
				s.remind(now)
				asked += len(s.next(now))
			}
			if asked < test.asked || test.refused && (asked > 0 || s.flight != 0 || len(s.tracks) > 0) {
				t.Errorf("asked %d times, with %d bytes in flight and %d logs to ship", asked, s.flight, len(s.tracks))
			}
		})
	}
}
