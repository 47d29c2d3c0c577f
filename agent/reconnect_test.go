package agent_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/schedd/schedd/agent"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// A load balancer with an idle timeout of 15 s cuts no session of a worker that
// has nothing to do.
func TestShortIdleTimeout(t *testing.T) {
	story(t, polite, nil, func(w *world) {
		w.behind(&balancer{backends: []*gateway{w.gateway}, idle: 15 * time.Second})
		w.start()
		w.wait(50 * time.Minute)
		if n := len(w.gateway.visits()); n != 1 {
			t.Errorf("%d sessions in 50 minutes, want the one to last", n)
		}
	})
}

// A load balancer that does not know yet which primaries are dead costs a worker
// less than 5 s, whether it closes the connection or leaves it hanging.
func TestDeadBackends(t *testing.T) {
	for _, hang := range []bool{false, true} {
		for _, dead := range []int{1, 2} {
			t.Run(fmt.Sprintf("%d dead, hanging %v", dead, hang), func(t *testing.T) {
				story(t, polite, nil, func(w *world) {
					backends := append(make([]*gateway, dead), w.gateway)
					w.behind(&balancer{backends: backends, hang: hang})
					w.start()
					w.wait(5 * time.Second)
					for round := range 10 {
						if n := len(w.gateway.visits()); n != round+1 {
							t.Fatalf("%d sessions after %d cuts", n, round)
						}
						w.wait(time.Duration(2+round%2) * time.Minute) // not like a clock
						w.gateway.last().hangUp()
						w.wait(5 * time.Second)
					}
				})
			})
		}
	}
}

// A line on which nothing comes through in time at first is given ever more time.
func TestSlowLine(t *testing.T) {
	story(t, polite, nil, func(w *world) {
		w.dial = func(ctx context.Context, addr string) (net.Conn, error) {
			delay := time.NewTimer(10 * time.Second)
			defer delay.Stop()
			select {
			case <-delay.C:
				return w.gateway.dial(ctx, addr)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		w.start()
		w.wait(2 * time.Minute)
		w.says(w.gateway.last(), "inventory")
		dials := w.gateway.dialled()

		w.gateway.last().hangUp() // by now it knows how long it takes
		w.wait(15 * time.Second)
		if got := w.gateway.dialled() - dials; len(w.gateway.visits()) != 2 || got != 1 {
			t.Errorf("%d sessions, and %d connections for the second, want 2 and 1", len(w.gateway.visits()), got)
		}
	})
}

// The end of a stream is no goodbye, however clean it looks: the worker is back
// within half a second, and what runs goes on.
func TestEndIsNoGoodbye(t *testing.T) {
	story(t, polite, map[string]fakerunner.Behaviour{"r1": {Duration: time.Hour}}, func(w *world) {
		w.start()
		w.gateway.last().launch(launchOf("r1"))
		for round, end := range []func(*visit){(*visit).close, (*visit).hangUp, (*visit).close} {
			w.wait(2 * time.Minute)
			end(w.gateway.last())
			w.wait(500 * time.Millisecond)
			if n := len(w.gateway.visits()); n != round+2 {
				t.Fatalf("%d sessions after %d ends", n, round+1)
			}
			w.says(w.gateway.last(), "inventory r1/1=RUNNING")
		}
		w.startsOf("r1", 1)
	})
}

// Statuses that would be final if they were a primary's may come from a load
// balancer. They make the worker slower, and no more than that.
func TestStatusesHaveNoAuthority(t *testing.T) {
	for _, code := range []codes.Code{codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented} {
		t.Run(code.String(), func(t *testing.T) {
			m := polite
			m.code = code
			story(t, m, nil, func(w *world) {
				w.start()
				w.wait(time.Minute)
				if n := w.gateway.tried(); n < 5 {
					t.Errorf("%d tries in the first minute, want some at once: it may be over soon", n)
				}
				begun, before := time.Now(), w.gateway.tried()
				w.wait(time.Hour)
				if n := w.gateway.tried() - before; n < 60 || n > 120 {
					t.Errorf("%d tries in %v, want one each 30 s to a minute", n, time.Since(begun))
				}
				w.gateway.behave(func(m *manners) { m.code = codes.OK })
				w.wait(time.Minute)
				w.says(w.gateway.last(), "inventory")
			})
		})
	}
}

// Somebody on the way who cuts streams by the clock is recognised, and sessions
// are replaced before that from then on.
func TestMaximumDuration(t *testing.T) {
	for _, limit := range []time.Duration{30 * time.Second, 10 * time.Minute} {
		t.Run(limit.String(), func(t *testing.T) {
			story(t, polite, nil, func(w *world) {
				w.behind(&balancer{backends: []*gateway{w.gateway}, age: limit})
				one := w.start()
				w.wait(20 * limit)
				all := w.gateway.visits()
				if len(all) < 20 || len(all) > 30 {
					t.Fatalf("%d sessions in 20 times the limit", len(all))
				}
				for i, v := range all[3 : len(all)-1] {
					next, life := all[3+i+1], v.over().Sub(v.begun)
					if next.begun.After(v.over()) || life < limit*7/10 || life > limit*8/10 {
						t.Errorf("a session lived for %v, and its successor began %v after its end", life, next.begun.Sub(v.over()))
					}
				}
				if n := strings.Count(one.log.String(), "cuts every stream at the same age"); n != 1 {
					t.Errorf("people were told %d times, want once", n)
				}
			})
		})
	}
}

// A primary or load balancer that takes no new streams on a connection is left
// soon, and not before there is another session.
func TestGoAway(t *testing.T) {
	story(t, polite, nil, func(w *world) {
		other := newGateway(w.T, polite)
		defer other.close()
		w.start()
		w.wait(2 * time.Minute)
		first, begun := w.gateway.last(), time.Now()

		w.gateway.handOver(other)
		var stopping sync.WaitGroup
		stopping.Go(w.gateway.server.GracefulStop)
		w.wait(6 * time.Second)
		stopping.Wait() // it waits for its sessions
		second := other.last()
		if after := second.begun.Sub(begun); after > 5*time.Second || first.over().Before(second.begun) {
			t.Errorf("the new session began after %v, the old one ended %v after that", after, first.over().Sub(second.begun))
		}
		w.says(first, "inventory", "goodbye")
		w.says(second, "inventory")
		w.wait(10 * time.Minute)
		w.says(second, "inventory")
	})
}

// Workers that a load balancer has cut all at once do not come back all at once.
func TestBalancerRestart(t *testing.T) {
	story(t, polite, nil, func(w *world) {
		b := w.behind(&balancer{backends: []*gateway{w.gateway}})
		const workers = 10
		for range workers {
			w.startIn(w.TempDir(), w.boot)
		}
		w.wait(2 * time.Minute)
		cut := time.Now()
		b.restart()
		w.wait(time.Second)
		all := w.gateway.visits()
		if len(all) != 2*workers {
			t.Fatalf("%d sessions of %d workers, want one more each", len(all), workers)
		}
		moments := map[time.Duration]bool{}
		for _, v := range all[workers:] {
			moments[v.begun.Sub(cut)] = true
		}
		if len(moments) < workers/2 || slices.Max(slices.Collect(maps.Keys(moments))) > 500*time.Millisecond {
			t.Errorf("%d workers came back after %v, want them spread over half a second", workers, moments)
		}
	})
}

// Of several primaries each has its turn, in an order that differs between
// workers; one that is away costs one try.
func TestListOfPrimaries(t *testing.T) {
	story(t, polite, nil, func(w *world) {
		var mu sync.Mutex
		var dialled []string
		w.dial = func(ctx context.Context, addr string) (net.Conn, error) {
			mu.Lock()
			dialled = append(dialled, addr)
			mu.Unlock()
			if strings.HasPrefix(addr, "[::1]:2") {
				return nil, errors.New("connection refused")
			}
			return w.gateway.dial(ctx, addr)
		}
		w.change = func(c *agent.Config, _ *agent.Seams) { c.Server = "[::1]:1,[::1]:2,[::1]:3" }
		firsts := map[string]bool{}
		for range 20 {
			mu.Lock()
			dialled = nil
			mu.Unlock()
			one := w.startIn(w.TempDir(), w.boot)
			for round := range 5 {
				w.wait(time.Duration(2+round%2) * time.Minute)
				w.gateway.last().hangUp()
			}
			w.wait(time.Second)
			one.end()
			if len(dialled) < 6 {
				t.Fatalf("dialled %q", dialled)
			}
			for i := range dialled[3:] {
				if dialled[i] != dialled[i+3] {
					t.Fatalf("dialled %q, want turns of three", dialled)
				}
			}
			firsts[strings.Join(dialled[:3], " ")] = true
		}
		if len(firsts) < 2 {
			t.Errorf("20 workers have the same order %v", firsts)
		}
	})
}

// A name with several addresses, of which one leads nowhere, costs no more than a
// fraction of a second: gRPC tries the next one meanwhile. A worker counts on it
// and has no code for it.
func TestNameWithSeveralAddresses(t *testing.T) {
	story(t, polite, nil, func(w *world) {
		names := manual.NewBuilderWithScheme("names")
		names.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: "gone"}, {Addr: "there"}}})
		conn, err := grpc.NewClient("names:///primaries", append(wire.DialOptions(),
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithResolvers(names),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				if addr == "gone" {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return w.gateway.dial(ctx, addr)
			}))...)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		began := time.Now()
		if _, err := agentv1.NewAgentGatewayClient(conn).Connect(w.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 300*time.Millisecond {
			t.Errorf("connected after %v", took)
		}
	})
}

// What workers advertise is for people. Wrong or equal, it changes nothing.
func TestAdvertisedIsMetadata(t *testing.T) {
	for _, advertised := range [][2]string{
		{"web-1", "10.0.0.5"}, {"localhost", "127.0.0.1"}, {"no such host, at all", "0.0.0.0"}, {"", "255.255.255.255"}, {"schedd.example.com:7421", "fe80::1"},
	} {
		t.Run(advertised[0], func(t *testing.T) {
			behaviour := fakerunner.Behaviour{Duration: time.Minute}
			story(t, polite, map[string]fakerunner.Behaviour{"r1": behaviour, "r2": behaviour}, func(w *world) {
				w.change = func(c *agent.Config, _ *agent.Seams) {
					c.AdvertiseHostname, c.AdvertiseIP = advertised[0], advertised[1]
				}
				w.start()
				first := w.gateway.last()
				w.startIn(w.TempDir(), w.boot)
				second := w.gateway.last()
				first.launch(launchOf("r1"))
				second.launch(launchOf("r2"))
				w.wait(30 * time.Minute)
				w.says(first, "inventory", "started r1/1", "result r1/1 SUCCEEDED")
				w.says(second, "inventory", "started r2/1", "result r2/1 SUCCEEDED")
				if n := len(w.gateway.visits()); n != 2 || w.gateway.dialled() != 2 {
					t.Errorf("%d sessions over %d connections, want the two", n, w.gateway.dialled())
				}
				for _, v := range []*visit{first, second} {
					if h := v.hello; h.GetAdvertiseIp() != advertised[1] || advertised[0] != "" && h.GetAdvertiseHostname() != advertised[0] {
						t.Errorf("advertised %q and %q", h.GetAdvertiseHostname(), h.GetAdvertiseIp())
					}
				}
			})
		})
	}
}
