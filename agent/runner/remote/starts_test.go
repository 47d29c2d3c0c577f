package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// line is a stream to a runner that takes one message after the other.
type line struct {
	grpc.BidiStreamingClient[runnerv1.StartsRequest, runnerv1.StartsResponse] // only Send is used

	sent chan *runnerv1.StartsRequest
}

func (l line) Send(m *runnerv1.StartsRequest) error {
	l.sent <- m
	return nil
}

// next tells whose starts are in the next message.
func (l line) next() string {
	m := <-l.sent
	ids := []string{fmt.Sprint("link ", m.GetLink())}
	for _, s := range m.GetStarts() {
		ids = append(ids, s.GetId())
	}
	return strings.Join(ids, " ")
}

// What is asked for while a message is on its way shares the next one, as far as there is
// room. When the link is lost nobody waits for an answer.
func TestStartsShareMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := line{sent: make(chan *runnerv1.StartsRequest)}
		s := &starts{stream: l, link: 7, asked: map[string]*asked{}}
		ask := func(id string, size int) *asked {
			return s.ask(&runnerv1.StartRequest{Id: id, Script: strings.Repeat("x", size)})
		}
		go ask("a", 1)
		synctest.Wait()
		all := []*asked{ask("b", 1), ask("c", maxShared), ask("d", maxShared/2), ask("e", 1)}
		for _, want := range []string{"link 7 a", "link 7 b", "link 7 c", "link 7 d e"} {
			if got := l.next(); got != want {
				t.Errorf("sent is %q, want %q", got, want)
			}
		}
		synctest.Wait()
		s.told(&runnerv1.Attempt{Id: "b"})
		s.answer("c", nil, &runnerv1.StartsResponse{Id: "c", Error: "no"})
		s.end()
		for _, a := range append(all, ask("f", 1)) {
			<-a.done
		}
		if all[0].lost || all[0].attempt.GetId() != "b" || all[1].refused.GetError() != "no" || !all[2].lost || !all[3].lost {
			t.Errorf("answers are %+v", all)
		}
	})
}

// Who sends its own start does not send those of all others for as long as there are any: it
// waits for its answer. They are sent all the same, and when the link is lost nobody sends.
func TestStartsAreNotSentByOneAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := line{sent: make(chan *runnerv1.StartsRequest)}
		s := &starts{stream: l, link: 7, asked: map[string]*asked{}}
		sent := make(chan *asked, 1)
		go func() { sent <- s.ask(&runnerv1.StartRequest{Id: "first"}) }()
		synctest.Wait()
		for i := range 10 {
			s.ask(&runnerv1.StartRequest{Id: fmt.Sprint(i)})
			if got := l.next(); i == 0 && got != "link 7 first" || i > 0 && got != fmt.Sprint("link 7 ", i-1) {
				t.Errorf("message %d is %q", i, got)
			}
			synctest.Wait()
			if len(sent) == 0 {
				t.Fatalf("after message %d the first one still sends those of others", i)
			}
		}
		l.next()
		synctest.Wait()
		go s.ask(&runnerv1.StartRequest{Id: "before the link is lost"})
		synctest.Wait()
		s.ask(&runnerv1.StartRequest{Id: "queued"})
		s.end()
		l.next()
		s.others.Wait()
		if a := <-sent; !a.lost {
			t.Error("the first one waits on")
		}
	})
}

// Nothing is started that was asked for over a link which another one has replaced, nor for
// a former life of the agent.
func TestStartsOfAFormerLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := fakerunner.New(func(runner.Spec) fakerunner.Behaviour { return fakerunner.Behaviour{Duration: time.Minute} })
		defer fake.Close()
		log := slog.New(slog.DiscardHandler)
		s := &service{keeper: newKeeper(log, fake, &book{log: log, journal: new(pad)})}
		var w *watcher
		for _, link := range []uint64{1, 2} {
			var err error
			if w, err = s.take(1, link); err != nil {
				t.Fatal(err)
			}
		}
		a := &runnerv1.StartRequest{Life: 1, Id: "a/1", Argv: []string{"true"}}
		if refused := s.startAmong(1, a); refused != nil || fake.Starts("a/1") != 0 {
			t.Errorf("over the former link it was started %d times, and the answer is %v", fake.Starts("a/1"), refused)
		}
		for range 2 { // the same one again is told again
			if refused := s.startAmong(2, a); refused != nil || fake.Starts("a/1") != 1 {
				t.Errorf("it was started %d times, and the answer is %v", fake.Starts("a/1"), refused)
			}
			if got := ids(s.news(w)); !slices.Equal(got, []string{"a/1"}) {
				t.Errorf("told of %v", got)
			}
		}
		s.leave(w)
		if refused := s.startAmong(2, &runnerv1.StartRequest{Life: 1, Id: "b/1", Argv: []string{"true"}}); refused != nil || fake.Starts("b/1") != 0 {
			t.Errorf("over a link that is gone it was started %d times, and the answer is %v", fake.Starts("b/1"), refused)
		}
		if _, err := s.take(2, 1); err != nil {
			t.Fatal(err)
		}
		if refused := s.startAmong(1, &runnerv1.StartRequest{Life: 1, Id: "b/1", Argv: []string{"true"}}); !refused.GetReplaced() || fake.Starts("b/1") != 0 {
			t.Errorf("for a former life it was started %d times, and the answer is %v", fake.Starts("b/1"), refused)
		}
		fake.Close()
		close(s.over)
		s.rest()
	})
}

// What is too large to share a message is asked for by a call, and is not started either
// for a link which another one has replaced. An agent of before revision 3 does not say
// which it has.
func TestLargeStartsOfAFormerLink(t *testing.T) {
	s := served(t, false)
	for _, link := range []uint64{1, 2} {
		if _, err := s.take(1, link); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		link uint64
		want codes.Code
	}{{1, codes.Unavailable}, {2, codes.OK}, {0, codes.OK}} {
		id := fmt.Sprint("a/", c.link)
		resp, err := s.Start(t.Context(), &runnerv1.StartRequest{Life: 1, Link: c.link, Id: id, Argv: []string{"true"}})
		if got := status.Code(err); got != c.want || (s.at(id) != nil) != (c.want == codes.OK) {
			t.Errorf("over link %d: %v, %v, want %v", c.link, resp, err, c.want)
		}
	}
}

// desk is a runner that is asked to start something, and says that it was over a former link.
type desk struct {
	runnerv1.RunnerServiceClient // only Start is used

	link uint64 // over which it was asked last
}

func (d *desk) Start(_ context.Context, m *runnerv1.StartRequest, _ ...grpc.CallOption) (*runnerv1.StartResponse, error) {
	d.link = m.GetLink()
	return nil, status.Error(codes.Unavailable, errNotLink.Error())
}

// An agent says over which link it asks for what is large, as far as the runner knows of
// links, and asks again over the next one if that is a former one.
func TestLargeStartsSayTheirLink(t *testing.T) {
	r := &Runner{
		o:     Options{Uptime: func() (time.Duration, bool) { return 0, true }},
		until: func(time.Time) (context.Context, context.CancelFunc) { return context.WithCancel(t.Context()) },
	}
	d := new(desk)
	for want, l := range map[uint64]*link{7: {client: d, starts: &starts{link: 7}}, 0: {client: d}} {
		d.link = 99
		p, err := r.ask(l, runner.Spec{ID: "a/1", Script: strings.Repeat("x", maxShared)})
		if !errors.Is(err, errUnanswered) || d.link != want {
			t.Errorf("asked over link %d, want %d: %v, %v", d.link, want, p, err)
		}
	}
}

// ids are those of the attempts that are told.
func ids(news []*runnerv1.WatchResponse) (all []string) {
	for _, m := range news {
		for _, a := range attemptsOf(m) {
			all = append(all, a.GetId())
		}
	}
	return all
}

// That an attempt runs is told at once, unless many start in quick succession: then it
// waits a little, and one that is over by then is told once.
func TestStartsGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := fakerunner.New(func(runner.Spec) fakerunner.Behaviour { return fakerunner.Behaviour{Duration: 30 * time.Millisecond} })
		defer fake.Close()
		log := slog.New(slog.DiscardHandler)
		s := &service{keeper: newKeeper(log, fake, &book{log: log, journal: new(pad)})}
		w, err := s.take(1, 1)
		if err != nil {
			t.Fatal(err)
		}
		w.shared = true
		s.news(w)
		began := time.Now()
		go func() {
			for i := range 31 {
				s.startAmong(1, &runnerv1.StartRequest{Life: 1, Id: fmt.Sprint(i), Argv: []string{"true"}})
				time.Sleep(time.Millisecond)
			}
		}()
		var told []string
		for time.Since(began) < 20*time.Millisecond {
			<-w.wake
			synctest.Wait()
			news := s.news(w)
			told = append(told, fmt.Sprintf("%v:%d in %d", time.Since(began), len(ids(news)), len(news)))
		}
		want := []string{"0s:1 in 1", "1ms:1 in 1", "2ms:1 in 1", "3ms:1 in 1", "9ms:6 in 1", "15ms:6 in 1", "21ms:6 in 1"}
		if !slices.Equal(told, want) {
			t.Errorf("told is %v, want %v", told, want)
		}
		time.Sleep(25 * time.Millisecond) // the last one ends
		s.news(w)
		if refused := s.startAmong(1, &runnerv1.StartRequest{Life: 1, Id: "last", Argv: []string{"true"}}); refused != nil {
			t.Fatal(refused)
		}
		time.Sleep(30 * time.Millisecond)
		synctest.Wait()
		if got := ids(s.news(w)); !slices.Contains(got, "last") || len(slices.Compact(slices.Sorted(slices.Values(got)))) != len(got) {
			t.Errorf("at the end told is %v", got)
		}
		time.Sleep(time.Minute)
		close(s.over)
		s.rest()
	})
}
