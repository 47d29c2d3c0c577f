package torture

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/server/torture/verdict"
)

// seen is a stranger, as it is seen from the outside.
type seen struct {
	what Evidence
	err  error
}

func (s seen) Evidence() (Evidence, error) { return s.what, s.err }

// api is the API of a primary, which tells of which cluster it is.
type api struct {
	schedv1.UnimplementedClusterServiceServer
	schedv1.UnimplementedWorkerServiceServer
	cluster string
}

func (api) ListWorkers(context.Context, *schedv1.ListWorkersRequest) (*schedv1.ListWorkersResponse, error) {
	return &schedv1.ListWorkersResponse{}, nil
}

func (a api) GetStatus(context.Context, *schedv1.GetStatusRequest) (*schedv1.GetStatusResponse, error) {
	return &schedv1.GetStatusResponse{Status: &schedv1.ClusterStatus{ClusterId: a.cluster}}, nil
}

func listen(t *testing.T) (net.Listener, netip.AddrPort) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, l.Addr().(*net.TCPAddr).AddrPort()
}

// serve serves the API of a primary of a cluster.
func serve(t *testing.T, cluster string) netip.AddrPort {
	t.Helper()
	l, at := listen(t)
	s := grpc.NewServer()
	schedv1.RegisterClusterServiceServer(s, api{cluster: cluster})
	schedv1.RegisterWorkerServiceServer(s, api{cluster: cluster})
	go func() { _ = s.Serve(l) }() // it ends with Stop
	t.Cleanup(s.Stop)
	return at
}

// Somebody tortures staging, on a host that has a primary and a worker of production
// with the same names: neither is taken for one of staging. What can't be told is not
// taken either.
func TestRecognize(t *testing.T) {
	staging, production := serve(t, "staging"), serve(t, "production")
	silent, web := listen(t)
	go func() { // it is no API
		for {
			c, err := silent.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	everywhere := netip.AddrPortFrom(netip.IPv4Unspecified(), staging.Port())
	ours, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	theirs, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	cluster := web // it is no API either
	group := scene{
		cluster: "staging", primaries: map[string]bool{"p1": true, "p2": true},
		addresses: map[string]string{"p1": fmt.Sprint("10.0.0.1:", cluster.Port()), "p2": "10.0.0.2:1"},
		ids:       map[string][]string{"w1": {"w-other", wire.WorkerID(ours)}},
	}
	nameless := group
	nameless.cluster = ""
	alone := scene{cluster: "staging", primaries: map[string]bool{"p1": true}, addresses: map[string]string{}}
	primary, worker, runner := Victim{Part: Primary, Name: "p1"}, Victim{Part: Worker, Name: "w1"}, Victim{Part: Runner, Name: "w1"}
	other := Victim{Part: Primary, Name: "p2"}
	at := func(all ...netip.AddrPort) seen { return seen{what: Evidence{Listens: all}} }
	for name, test := range map[string]struct {
		victim Victim
		scene  scene
		seen   seen
		want   string // in the error; empty: it is recognized
	}{
		"ours":                         {primary, group, at(web, cluster, staging), ""},
		"ours, at any address":         {primary, group, at(cluster, everywhere), ""},
		"ours, alone":                  {primary, alone, at(staging), ""},
		"production's, the same port":  {primary, group, at(cluster, production), "of the cluster production, and the torture is of staging"},
		"production's, alone":          {primary, alone, at(production), "of the cluster production"},
		"another one of ours":          {other, group, at(cluster, staging), "is dialled by the others at 10.0.0.2:1"},
		"it serves no API":             {primary, group, at(cluster, web), "can't be told"},
		"it listens nowhere":           {primary, alone, at(), "can't be told"},
		"our cluster has no id":        {primary, nameless, at(cluster, web), "can't be told"},
		"it can't be looked at":        {primary, group, seen{err: errors.New("permission denied")}, "permission denied"},
		"our worker":                   {worker, group, seen{what: Evidence{Key: ours}}, ""},
		"its runner":                   {runner, group, seen{what: Evidence{Key: ours}}, ""},
		"a worker of the same name":    {worker, group, seen{what: Evidence{Key: theirs}}, "is of the worker " + wire.WorkerID(theirs)},
		"a runner in its own place":    {runner, group, seen{}, "can't be told"},
		"a worker that can't be asked": {worker, group, seen{err: errors.New("permission denied")}, "permission denied"},
	} {
		test.victim.Stranger = test.seen
		err := (&torture{}).recognize(t.Context(), test.victim, test.scene)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	if err := (&torture{}).recognize(t.Context(), primary, group); err != nil {
		t.Errorf("one that was started by whoever names it: %v", err)
	}
}

// killed counts how often it was killed.
type killed struct {
	firm
	times int
}

func (k *killed) Kill(context.Context, time.Duration) error { k.times++; return nil }

// A process that is not recognized at the moment of the fault is left alone, whatever
// it was before, and the fault counts as one that failed.
func TestStrangersAreLeftAlone(t *testing.T) {
	key, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := scene{ids: map[string][]string{"w1": {wire.WorkerID(key)}}}
	tt := &torture{Config: Config{Out: io.Discard}}
	p := &killed{}
	for i, now := range []seen{{what: Evidence{Key: key}}, {}, {err: errors.New("permission denied")}} {
		b := blow{Victim{Part: Worker, Name: "w1", Process: p, Stranger: now}, verdict.Kill, verdict.Worker}
		if f := tt.deal(t.Context(), b, 0, s); (f.Failed == "") != (i == 0) || f.Name != "w1" || f.Until.Before(f.At) {
			t.Errorf("%d: %+v", i, f)
		}
	}
	if p.times != 1 {
		t.Errorf("it was killed %d times, want once", p.times)
	}
}
