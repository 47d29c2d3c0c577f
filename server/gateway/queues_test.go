package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"testing"

	"pgregory.net/rapid"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/server/runlog"
)

func drawKey(t *rapid.T) runlog.Key {
	return runlog.Key{Run: fmt.Sprint("r", rapid.IntRange(0, 3).Draw(t, "run")), Attempt: 1}
}

// Whatever is put in and whenever something is taken out: the urgent come first,
// then the rest, then acknowledgements; each kind in its order; and of the
// acknowledgements of an attempt the latest.
func TestOutboxOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := newOutbox()
		var waiting [priorities][]*agentv1.GatewayMessage
		acks := map[runlog.Key]*agentv1.LogAck{}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				p := priority(rapid.IntRange(0, int(priorities)-1).Draw(t, "priority"))
				m := &agentv1.GatewayMessage{}
				if !o.put(p, m) {
					t.Fatal("the outbox is full")
				}
				waiting[p] = append(waiting[p], m)
			},
			"ack": func(t *rapid.T) {
				k, a := drawKey(t), &agentv1.LogAck{}
				if !o.ack(k, a) {
					t.Fatal("the outbox is full")
				}
				a.Key = &agentv1.AttemptKey{RunId: k.Run}
				acks[k] = a
			},
			"next": func(t *rapid.T) {
				m := o.next()
				for p := range waiting {
					if len(waiting[p]) > 0 {
						if m != waiting[p][0] {
							t.Fatalf("got %v, want the first of priority %d", m, p)
						}
						waiting[p] = waiting[p][1:]
						return
					}
				}
				if (m == nil) != (len(acks) == 0) {
					t.Fatalf("got %v with acknowledgements of %d attempts waiting", m, len(acks))
				}
				if m != nil {
					k := runlog.Key{Run: m.GetLogAck().GetKey().GetRunId(), Attempt: 1}
					if acks[k] != m.GetLogAck() {
						t.Fatalf("got an acknowledgement of %v that is not the latest", k)
					}
					delete(acks, k)
				}
			},
		})
	})
}

func TestOutboxIsBounded(t *testing.T) {
	o := newOutbox()
	for range maxWaiting {
		o.put(normal, &agentv1.GatewayMessage{})
	}
	if o.put(normal, &agentv1.GatewayMessage{}) {
		t.Error("one more than fits was taken")
	}
	if !o.put(urgent, &agentv1.GatewayMessage{}) {
		t.Error("what is urgent has no room for the rest")
	}
	for i := range maxAcks {
		o.ack(runlog.Key{Run: "r", Attempt: uint32(i)}, &agentv1.LogAck{})
	}
	if o.ack(runlog.Key{Run: "s"}, &agentv1.LogAck{}) {
		t.Error("one more acknowledgement than fits was taken")
	}
	if !o.ack(runlog.Key{Run: "r", Attempt: 5}, &agentv1.LogAck{}) {
		t.Error("a later acknowledgement of the same attempt was refused")
	}
}

// intakeModel is what an intake should hold.
type intakeModel struct {
	q          *intake
	put        map[runlog.Key][]at
	asked      map[runlog.Key]bool
	ends       map[runlog.Key]int64
	unanswered int
	credit     int64 // the most that was granted
}

// at is one byte at its offset.
type at struct {
	offset int64
	b      byte
}

func bytesOf(c chunk) (all []at) {
	for i, b := range c.data {
		all = append(all, at{c.offset + int64(i), b})
	}
	return all
}

func (m *intakeModel) Put(t *rapid.T) {
	k := drawKey(t)
	data := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, rapid.SampledFrom([]int{0, 1, 5, wire.LogChunk}).Draw(t, "size"))
	c := chunk{offset: m.ends[k], data: data, damaged: rapid.IntRange(0, 9).Draw(t, "damaged") == 0}
	if rapid.IntRange(0, 3).Draw(t, "jump") == 0 {
		c.offset = rapid.Int64Range(0, 100).Draw(t, "offset")
	}
	c.crc = crc32.Checksum(data, castagnoli)
	err := m.q.put(k, c)
	if tooMuch := m.unanswered+len(data) > 2*int(m.credit); tooMuch != errors.Is(err, errCredit) {
		t.Fatalf("put %d bytes with %d unanswered: %v", len(data), m.unanswered, err)
	}
	if err != nil {
		return
	}
	m.asked[k], m.ends[k] = true, c.offset+int64(len(data))
	m.unanswered += len(data)
	if !c.damaged {
		m.put[k] = append(m.put[k], bytesOf(c)...)
	}
}

func (m *intakeModel) Take(t *rapid.T) {
	k, chunks, ok := m.q.take()
	if ok != (len(m.asked) > 0) || ok && !m.asked[k] {
		t.Fatalf("took %v, %v, want one of %v", k, ok, m.asked)
	}
	var got []at
	size := 0
	for _, c := range chunks {
		size += len(c.data)
		if c.crc != crc32.Checksum(c.data, castagnoli) {
			t.Fatalf("%d bytes at %d have the wrong checksum", len(c.data), c.offset)
		}
		if !c.damaged {
			got = append(got, bytesOf(c)...)
		}
	}
	if !slices.Equal(got, m.put[k]) {
		t.Fatalf("took other bytes of %v than were put", k)
	}
	delete(m.put, k)
	delete(m.asked, k)
	credit := rapid.Int64Range(wire.LogCredit, maxCredit).Draw(t, "credit")
	m.q.answered(size, credit)
	m.unanswered -= size
	m.credit = max(m.credit, credit)
}

// Check is run after each step.
func (m *intakeModel) Check(t *rapid.T) {
	if m.q.unanswered != m.unanswered || len(m.q.order) != len(m.asked) {
		t.Fatalf("%d bytes unanswered of %d attempts, want %d of %d", m.q.unanswered, len(m.q.order), m.unanswered, len(m.asked))
	}
}

// Whatever order output comes in: what is taken is what was put, byte by byte at
// its offset and in the order of its attempt; checksums stay true; nobody is
// forgotten; and the credit adds up.
func TestIntake(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		t.Repeat(rapid.StateMachineActions(&intakeModel{
			q: newIntake(), credit: wire.LogCredit, put: map[runlog.Key][]at{}, asked: map[runlog.Key]bool{}, ends: map[runlog.Key]int64{},
		}))
	})
}
