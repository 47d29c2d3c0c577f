package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"slices"
	"sync"
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
	spoilt bool // it came with another checksum, and nobody has looked yet
}

func bytesOf(c chunk, spoilt bool) (all []at) {
	for i, b := range c.data {
		all = append(all, at{c.offset + int64(i), b, spoilt})
	}
	return all
}

func spoilt(c chunk) bool { return c.crc != crc32.Checksum(c.data, castagnoli) }

func (m *intakeModel) draw(t *rapid.T) (runlog.Key, chunk) {
	k := drawKey(t)
	data := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, rapid.SampledFrom([]int{0, 1, 5, wire.LogChunk}).Draw(t, "size"))
	c := chunk{offset: m.ends[k], data: data, crc: crc32.Checksum(data, castagnoli)}
	if rapid.IntRange(0, 3).Draw(t, "jump") == 0 {
		c.offset = rapid.Int64Range(0, 100).Draw(t, "offset")
	}
	if len(data) > 0 && rapid.IntRange(0, 9).Draw(t, "damaged") == 0 {
		c.crc++
		c.damaged = len(data) < leastBulk
	}
	return k, c
}

// wasPut takes note of what put said.
func (m *intakeModel) wasPut(t *rapid.T, k runlog.Key, c chunk, err error) {
	size := len(c.data)
	if tooMuch := m.unanswered+size > 2*int(m.credit); tooMuch != errors.Is(err, errCredit) {
		t.Fatalf("put %d bytes with %d unanswered: %v", size, m.unanswered, err)
	}
	if err != nil {
		return
	}
	m.asked[k], m.ends[k] = true, c.offset+int64(size)
	m.unanswered += size
	if !c.damaged {
		m.put[k] = append(m.put[k], bytesOf(c, spoilt(c))...)
	}
}

func (m *intakeModel) Put(t *rapid.T) {
	k, c := m.draw(t)
	m.wasPut(t, k, c, m.q.put(k, c))
}

// Take takes a turn while somebody puts, which may still be a part of it or not.
func (m *intakeModel) Take(t *rapid.T) {
	most, waiting := rapid.IntRange(1, 3).Draw(t, "most"), len(m.asked)
	k, c := m.draw(t)
	busy, _ := m.draw(t)
	if m.asked[busy] {
		waiting--
	}
	var beside sync.WaitGroup
	var err error
	beside.Go(func() { err = m.q.put(k, c) })
	all := m.q.takeAll(most, func(k runlog.Key) bool { return k != busy })
	beside.Wait()
	m.wasPut(t, k, c, err)
	size := 0
	for _, d := range all {
		if !m.asked[d.key] || d.key == busy {
			t.Fatalf("took %v twice, unasked, or before it was ready", d.key)
		}
		delete(m.asked, d.key)
		size += m.taken(t, d)
	}
	if len(all) < min(most, waiting) || len(all) > most {
		t.Fatalf("took output of %d attempts, at most %d, with %d waiting", len(all), most, waiting)
	}
	if len(m.q.waiting[k]) > 0 { // it came too late
		m.asked[k] = true
	}
	for k, rest := range m.put {
		if len(rest) > 0 && !m.asked[k] {
			t.Fatalf("%d bytes of %v are neither taken nor waiting", len(rest), k)
		}
	}
	credit := rapid.Int64Range(wire.LogCredit, maxCredit).Draw(t, "credit")
	m.q.answered(size, credit)
	m.unanswered -= size
	m.credit = max(m.credit, credit)
}

// taken compares what was taken with what was put, and returns its size.
func (m *intakeModel) taken(t *rapid.T, d delivery) int {
	for _, c := range d.chunks {
		if c.damaged {
			continue
		}
		want := m.put[d.key][:min(len(c.data), len(m.put[d.key]))]
		m.put[d.key] = m.put[d.key][len(want):]
		if one := slices.ContainsFunc(want, func(a at) bool { return a.spoilt }); one != spoilt(c) {
			t.Fatalf("%d bytes at %d with some that came damaged: %v; their checksum says so: %v", len(c.data), c.offset, one, spoilt(c))
		}
		if !slices.EqualFunc(bytesOf(c, false), want, func(a, b at) bool { return a.offset == b.offset && a.b == b.b }) {
			t.Fatalf("took other bytes of %v than were put", d.key)
		}
	}
	return sizeOf(d.chunks)
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

// An attempt whose output comes while a turn is taken waits for the next one, since what
// is of one turn is written side by side.
func TestTurnHasAnAttemptOnce(t *testing.T) {
	const size = 1_000_000
	q := newIntake()
	var flood sync.WaitGroup
	flood.Go(func() {
		for at := range int64(size) {
			for q.put(runlog.Key{Run: "r", Attempt: 1}, chunk{offset: at, data: []byte{'x'}}) != nil {
				runtime.Gosched() // until it has credit
			}
		}
	})
	twice := 0
	for got := 0; got < size; runtime.Gosched() {
		all := q.takeAll(maxTogether, func(runlog.Key) bool { return true })
		if len(all) > 1 {
			twice++
		}
		for _, d := range all {
			got += sizeOf(d.chunks)
			q.answered(sizeOf(d.chunks), wire.LogCredit)
		}
	}
	flood.Wait()
	if twice > 0 {
		t.Errorf("%d turns have the attempt more than once", twice)
	}
}
