package torture

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/proto/wire"
)

// Stranger is a process that somebody named, who may have named the wrong one: a
// primary of another cluster that has the same node id, or that of another host.
type Stranger interface {
	// Evidence returns what shows which process it is at the moment. Until it is called
	// again nothing but that process is harmed.
	Evidence() (Evidence, error)
}

// Evidence is what is seen of a process from the outside.
type Evidence struct {
	// Listens is where it takes TCP connections, as it is on this host.
	Listens []netip.AddrPort
	// Key is that of the worker whose data directory it has locked; nil when it has none.
	Key ed25519.PublicKey
}

// recognize tells why a process is not the victim that it was named as, or can't be
// told to be. One that has no stranger was started by whoever named it.
func (t *torture) recognize(ctx context.Context, v Victim, s scene) error {
	if v.Stranger == nil {
		return nil
	}
	e, err := v.Stranger.Evidence()
	if err != nil {
		return fmt.Errorf("tell whether it is the %v: %w", v, err)
	}
	if v.Part != Primary {
		return isWorker(e, v, s)
	}
	if err := hasAddress(e, v, s); err != nil {
		return err
	}
	return isOf(ctx, s.cluster, v, e.Listens)
}

// recognizeAll tells which processes are not what they were named as, and says what it
// does to the cluster to harm them.
func (t *torture) recognizeAll(ctx context.Context) error {
	s, err := t.look(ctx)
	if err != nil {
		return fmt.Errorf("look at the cluster: %w", err)
	}
	var all error
	for _, v := range t.Victims {
		all = errors.Join(all, t.recognize(ctx, v, s))
	}
	if all == nil && !t.Closed {
		for _, text := range s.consequences(t.Victims) {
			t.say("note: %s", text)
		}
	}
	return all
}

// isWorker tells why a process is not of the worker that was named. A worker is its
// key, whatever its name.
func isWorker(e Evidence, v Victim, s scene) error {
	if e.Key == nil {
		return fmt.Errorf("whether the process that --pid gives is the %v can't be told, and it is left alone: it has locked no data directory with the key of a worker; of a runner that has a directory of its own (--runner-dir) give the agent only", v)
	}
	if id := wire.WorkerID(e.Key); !slices.Contains(s.ids[v.Name], id) {
		return fmt.Errorf("the process that --pid gives for the %v is of the worker %s, and here that name has %v: give the one of this cluster", v, id, s.ids[v.Name])
	}
	return nil
}

// hasAddress tells why a process is not the primary that was named, among those of
// its group: which one it is says the port that the others dial. One that is alone can
// be no other.
func hasAddress(e Evidence, v Victim, s scene) error {
	if len(s.primaries) == 1 {
		return nil
	}
	_, port, err := net.SplitHostPort(s.addresses[v.Name])
	if err != nil {
		return fmt.Errorf("whether the process that --pid gives is the %v can't be told, and it is left alone: its cluster address %q: %w", v, s.addresses[v.Name], err)
	}
	if !slices.ContainsFunc(e.Listens, func(at netip.AddrPort) bool { return fmt.Sprint(at.Port()) == port }) {
		return fmt.Errorf("the process that --pid gives for the %v listens on %v, and that primary is dialled by the others at %s: give the file of that one, and of a port that no translation changes", v, e.Listens, s.addresses[v.Name])
	}
	return nil
}

// isOf asks a primary itself, wherever it listens, of which cluster it is, and tells
// why it is not of the one that is tortured. Ids of primaries and addresses of networks
// are the same in many clusters; the cluster's id is not.
func isOf(ctx context.Context, cluster string, v Victim, listens []netip.AddrPort) error {
	if cluster == "" {
		return fmt.Errorf("whether the process that --pid gives is the %v can't be told, and it is left alone: the cluster that is tortured does not say its id", v)
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	var asked sync.WaitGroup
	defer asked.Wait()
	defer cancel() // who has not answered by then need not
	answers := make(chan string, len(listens))
	for _, at := range listens {
		asked.Go(func() { answers <- clusterAt(ctx, at) })
	}
	for range listens {
		switch id := <-answers; id {
		case cluster:
			return nil
		case "":
		default:
			return fmt.Errorf("the process that --pid gives for the %v is of the cluster %s, and the torture is of %s: it is left alone", v, id, cluster)
		}
	}
	return fmt.Errorf("whether the process that --pid gives is the %v can't be told, and it is left alone: it says of which cluster it is at none of %v", v, listens)
}

// clusterAt returns the id of the cluster whose API is served there; empty when none is.
func clusterAt(ctx context.Context, at netip.AddrPort) string {
	address := at
	if ip := at.Addr(); ip.IsUnspecified() {
		loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if ip.Is6() {
			loopback = netip.IPv6Loopback()
		}
		address = netip.AddrPortFrom(loopback, at.Port())
	}
	g, err := dial([]string{address.String()})
	if err != nil {
		return ""
	}
	defer g.close()
	resp, err := g.servers[0].cluster.GetStatus(ctx, &schedv1.GetStatusRequest{})
	if err != nil {
		return "" // it is another port than that of the API
	}
	return resp.GetStatus().GetClusterId()
}
