package peer

import (
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
)

// link is the leader's end of one link.
type link struct {
	hub    *Hub
	stream leaderStream
	admit  func(primaryID string) error
	id     string // of the primary; set before greeted is closed

	out     *queue[*peerv1.LinkResponse]
	greeted chan struct{}
	ended   chan struct{}
	once    sync.Once
	cause   error // set before ended is closed

	mu     sync.Mutex // guards the following
	known  Primary
	synced bool      // all sessions that there were when the link was made are told
	seq    uint64    // of the last beat
	sent   time.Time // when it was
}

func newLink(h *Hub, stream leaderStream, admit func(string) error) *link {
	return &link{
		hub: h, stream: stream, admit: admit, out: newQueue[*peerv1.LinkResponse](within(stream)),
		greeted: make(chan struct{}), ended: make(chan struct{}), known: Primary{LastContact: time.Now()},
	}
}

// end ends the link, unless it has ended for another reason. It does not wait.
func (l *link) end(cause error) {
	l.once.Do(func() {
		l.cause = cause
		close(l.ended)
	})
}

// put queues a message, and ends a link whose gateway takes none.
func (l *link) put(m *peerv1.LinkResponse) bool {
	if !l.out.put(m) {
		l.end(status.Error(codes.ResourceExhausted, "too much waits for the gateway"))
		return false
	}
	return true
}

// primary returns what was heard of the gateway's primary.
func (l *link) primary() Primary {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known
}

// serve talks until the link ends, and returns why. It watches the two that talk:
// that it returns ends the stream, which is the only way to wake one that waits in
// Send or Recv on a connection that has died without a word.
func (l *link) serve() error {
	l.hub.tasks.Go(l.receive)
	l.hub.tasks.Go(func() { l.end(l.send()) })
	look := time.NewTicker(l.hub.Beat)
	defer look.Stop()
	for {
		select {
		case <-l.ended:
			return l.cause
		case <-look.C:
			if time.Since(l.primary().LastContact) > linkDeadAfter {
				l.end(status.Errorf(codes.DeadlineExceeded, "nothing was heard of the gateway for %v", linkDeadAfter))
			}
		}
	}
}

// send sends the welcome, and then what waits, and a beat every so often.
func (l *link) send() error {
	select {
	case <-l.ended:
		return l.cause
	case <-l.greeted:
	}
	if err := l.stream.Send(l.welcome()); err != nil {
		return err
	}
	beat := time.NewTicker(l.hub.Beat)
	defer beat.Stop()
	for {
		var err error
		select {
		case <-l.ended:
			return l.cause
		case <-l.out.wake:
			err = l.flush()
		case <-beat.C:
			err = l.stream.Send(l.beat())
		}
		if err != nil {
			return err
		}
	}
}

func (l *link) flush() error {
	all, ok := l.out.take()
	if !ok {
		return errors.New("too much waited for the gateway")
	}
	for _, m := range all {
		if err := l.stream.Send(m); err != nil {
			return err
		}
	}
	return nil
}

func (l *link) welcome() *peerv1.LinkResponse {
	return &peerv1.LinkResponse{Body: &peerv1.LinkResponse_Welcome{
		Welcome: &peerv1.LinkWelcome{LeaderId: l.hub.PrimaryID, Term: l.hub.Term()},
	}}
}

func (l *link) beat() *peerv1.LinkResponse {
	others := l.hub.othersKeep(l)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	l.sent = l.hub.Clock()
	return &peerv1.LinkResponse{Body: &peerv1.LinkResponse_Beat{Beat: &peerv1.Beat{
		Seq: l.seq, Time: timestamppb.New(l.sent), AppliedIndex: l.hub.Applied(), OthersKeep: others,
	}}}
}

// receive takes what the gateway tells until the link ends.
func (l *link) receive() {
	defer l.hub.leave(l)
	m, err := l.stream.Recv()
	if err == nil {
		err = l.greet(m.GetHello())
	}
	if err != nil {
		l.end(err)
		return
	}
	l.hub.join(l)
	close(l.greeted)
	began := time.Now()
	l.hub.Log.Info("primary linked", "primary", l.id, "version", l.primary().Version)
	for err == nil {
		if m, err = l.stream.Recv(); err == nil {
			l.heard(time.Now())
			l.handle(m)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	l.end(err)
	l.hub.Log.Info("primary's link ended", "primary", l.id, "after", time.Since(began).Round(time.Millisecond), "err", l.cause)
}

func (l *link) greet(hello *peerv1.LinkHello) error {
	if hello.GetPrimaryId() == "" {
		return status.Error(codes.InvalidArgument, "a link begins with a hello that names the primary")
	}
	if err := l.admit(hello.GetPrimaryId()); err != nil {
		return err
	}
	l.id = hello.GetPrimaryId()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known.Version, l.known.Instance, l.known.LastContact = hello.GetVersion(), hello.GetInstance(), time.Now()
	l.known.Level = max(hello.GetLevel(), firstLevel)
	l.known.Failing = hello.GetFailing()
	return nil
}

// firstLevel is that of a primary that does not say what it can apply.
const firstLevel = 1

func (l *link) heard(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known.LastContact = now
}

func (l *link) setSynced() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.synced = true
}

func (l *link) isSynced() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.synced
}

// handle sorts a message. Of a kind that this version does not know it can't be
// one that matters.
func (l *link) handle(m *peerv1.LinkRequest) {
	h := l.hub
	switch b := m.GetBody().(type) {
	case *peerv1.LinkRequest_Attach:
		h.attach(l, sessionOf(l.id, b.Attach))
	case *peerv1.LinkRequest_Synced:
		l.setSynced()
	case *peerv1.LinkRequest_Detach:
		h.detach(l, b.Detach.GetWorkerId(), b.Detach.GetEpoch())
	case *peerv1.LinkRequest_Report:
		if r := b.Report; h.holds(l, r.GetWorkerId(), r.GetEpoch()) {
			h.Leader.Report(r.GetWorkerId(), r.GetEpoch(), r.GetMessage())
		}
	case *peerv1.LinkRequest_Seen:
		for _, w := range b.Seen.GetWorkers() {
			h.Leader.Seen(w.GetWorkerId(), w.GetEpoch(), w.GetTime().AsTime())
		}
	case *peerv1.LinkRequest_Beat:
		if l.answered(b.Beat, h.Clock()) {
			h.reshare()
		}
	}
}

// answered takes the answer to a beat, and reports whether the gateway's disk has
// begun to fail, or to work again. An answer to an earlier beat is too old to tell the
// time by.
func (l *link) answered(b *peerv1.Beat, now time.Time) (turned bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	turned = l.known.Failing != b.GetFailing()
	l.known.AppliedIndex, l.known.Sessions = b.GetAppliedIndex(), int(b.GetSessions())
	l.known.Condition = Condition{LogsMissing: int(b.GetLogsMissing()), LogsAmong: b.GetLogsAmong(), Failing: b.GetFailing()}
	if b.GetSeq() == l.seq {
		l.known.ClockOffset, l.known.RTT = offsetOf(l.sent, b.GetTime().AsTime(), now)
	}
	return turned
}
