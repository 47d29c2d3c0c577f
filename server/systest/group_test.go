package systest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/server"
)

// member is one primary of a group, over all its lives.
type member struct {
	w     *world
	id    string
	host  string // where it is; its id, at first
	disk  *raftstore.Memory
	files *fileDisk // of its run logs
	clock wallClock
	dir   string // of its run logs
	link  *link  // to the others
	lives int
	joins bool // it was not there when the group was formed
	older bool // it is of an older version

	logsBroken bool      // the disk of its run logs fails
	logsMended time.Time // when it last began to work again; zero: it always did

	server *server.Server // nil: it is down
	stop   context.CancelFunc
	wg     sync.WaitGroup
	err    error // of the last life; when wg is done
	own    *primary
}

// startGroup starts so many primaries, which form a group, and waits for a
// leader. From then on w.primary is whichever of them answers.
func (w *world) startGroup(n int) {
	w.Helper()
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprint("p", i+1))
	}
	for _, id := range ids {
		w.group = append(w.group, w.newMember(id, id))
	}
	for _, m := range w.group {
		m.start()
	}
	w.primary = &primary{}
	w.primary.connect(w, w.own, "group:"+apiPort)
	w.awaitLeader()
}

// awaitLeader waits until the group has a leader that answers.
func (w *world) awaitLeader() *member {
	w.Helper()
	var m *member
	w.await("a leader", time.Minute, func() bool {
		m = w.leader()
		return m != nil
	})
	return m
}

// leader returns the member that leads by the word of the one that answers.
func (w *world) leader() *member {
	ctx, cancel := context.WithTimeout(w.Context(), time.Second)
	defer cancel()
	for _, m := range w.alive() {
		r, err := m.own.clusters.GetStatus(ctx, &schedv1.GetStatusRequest{})
		if err != nil {
			continue
		}
		for _, x := range w.alive() {
			if x.id == r.GetStatus().GetLeaderId() {
				return x
			}
		}
	}
	return nil
}

// alive returns the members that are up.
func (w *world) alive() []*member {
	return slices.DeleteFunc(slices.Clone(w.group), func(m *member) bool { return m.server == nil })
}

// peers is the --join of all members.
func (w *world) peers() string {
	var list []string
	for _, m := range w.group {
		list = append(list, m.address())
	}
	return strings.Join(list, ",")
}

// address is where the others reach the member.
func (m *member) address() string { return net.JoinHostPort(m.host, clusterPort) }

// start starts the primary on what its last life left.
func (m *member) start() {
	m.w.Helper()
	c := server.DefaultConfig()
	c.NodeID, c.DataDir, c.Insecure = m.id, m.dir, true
	c.Cluster.Addr, c.Cluster.Advertise = m.address(), m.address()
	c.Cluster.Join = m.w.peers()
	if !m.joins {
		c.Cluster.BootstrapExpect = len(m.w.group)
	}
	m.w.configure(&c)
	m.disk.Fail(nil) // without room it would not start
	m.breakLogs(false)
	m.lives++
	m.w.terms.goesBy(m.id, &m.clock)
	s, err := server.Open(c, server.Seams{
		Log: m.w.log.With("on", fmt.Sprintf("%s.%d", m.id, m.lives)), Memory: m.disk, WallClock: m.clock.now, Heartbeat: m.w.heartbeat, Fsync: m.files.fsync, Level: m.level(),
		Listen:        func(string) (net.Listener, error) { return m.w.net.listen(port{m.host, apiPort}), nil },
		ListenCluster: func(string) (net.Listener, error) { return m.w.net.listen(port{m.host, clusterPort}), nil },
		DialCluster:   m.link.dial,
		DialWorker: func(address string) (*grpc.ClientConn, error) {
			return grpc.NewClient("passthrough:///"+address, append(wire.DialOptions(),
				grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(m.link.dial))...)
		},
	})
	if err != nil {
		m.w.Fatalf("opening %s: %v", m.id, err)
	}
	ctx, stop := context.WithCancel(m.w.Context())
	m.server, m.stop = s, stop
	m.w.net.troubles.ends("down", m.host, "")
	m.wg.Go(func() { m.err = s.Run(ctx) })
	m.own = &primary{}
	m.own.connect(m.w, m.w.net.newLink("client"), m.host+":"+apiPort)
}

// kill ends the primary as SIGKILL does, at this very instant.
func (m *member) kill() {
	m.w.Helper()
	m.w.net.vanish(m.host)
	m.disk.Pull()
	m.resume()
	m.files.free()
	m.end()
}

// unplug ends the primary as a loss of power does, at this very instant: what the disk of
// its log and that of its run logs had not taken for good is gone, or torn. Of its history
// nothing is: that is synced by SQLite, which tells nobody.
func (m *member) unplug(dice *rand.Rand) {
	m.w.Helper()
	m.w.net.vanish(m.host)
	m.w.lostEntries += m.disk.Lose()
	synced := m.files.synced()
	m.resume()
	m.files.free()
	m.breakLogs(false)
	m.end()
	m.w.lose(dice, synced, filepath.Join(m.dir, "runlogs"))
}

// suspend has the host of the primary stand still, or almost: timers go on in it, but
// nothing comes in or goes out, and its disk takes nothing.
func (m *member) suspend() {
	gone := m.w.net.halt(m.host)
	m.disk.BeforeWrite(func() { <-gone })
}

// resume has the host of the primary go on.
func (m *member) resume() {
	m.disk.BeforeWrite(nil)
	m.disk.BeforeSync(nil)
	m.w.net.troubles.ends("slow", m.host, "")
	m.w.net.resume(m.host)
}

// wipe takes all that a primary that is down had on its disks. Who has it start on new ones
// has it be of this version.
func (m *member) wipe() {
	m.disk = raftstore.NewMemory()
	if m.older {
		m.w.renewed = time.Now()
	}
	m.logsBroken, m.older = false, false
	m.dir += "-new"
}

// move takes a primary that is down to another host, with all that is on its disk.
func (m *member) move(host string) {
	m.w.net.troubles.ends("down", m.host, "")
	m.w.net.troubles.begins("down", host, "")
	m.host, m.link = host, m.w.net.newLink(host)
}

// namesake starts a primary under the name of m on a host of its own, with nothing on
// its disk. Who calls it ends it.
func (m *member) namesake(host string) *member {
	m.w.Helper()
	o := &member{w: m.w, id: m.id, host: host, disk: raftstore.NewMemory(), files: newFileDisk(), dir: m.dir + "-of-" + host, link: m.w.net.newLink(host)}
	o.start()
	return o
}

// leave asks the primary to stop, and waits until it has.
func (m *member) leave() {
	m.w.Helper()
	m.end()
	if m.err != nil {
		m.w.Errorf("%s stopped with %v", m.id, m.err)
	}
	m.w.net.vanish(m.host)
}

func (m *member) end() {
	m.w.net.troubles.begins("down", m.host, "")
	_ = m.own.conn.Close()
	m.stop()
	m.wg.Wait()
	m.server = nil
}

// endGroup kills what lives, for the end of the world.
func (w *world) endGroup() {
	_ = w.primary.conn.Close()
	for _, m := range w.alive() {
		m.kill()
	}
}

// isolate parts a member from all others, or joins them again. Workers and people
// still reach it.
func (m *member) isolate(apart bool) {
	for _, o := range m.w.group {
		if o != m {
			m.w.net.part(m.host, o.host, apart)
		}
	}
}

// connect makes clients that ask anew when the primary that they talk to goes
// away, and that read what was acknowledged by any of them.
func (p *primary) connect(w *world, way *link, address string) {
	w.Helper()
	options := append(wire.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(way.dial),
		grpc.WithDefaultServiceConfig(`{"methodConfig": [{"name": [{}], "waitForReady": true, "timeout": "60s", "retryPolicy": {
			"maxAttempts": 5, "initialBackoff": "0.2s", "maxBackoff": "3s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if !strings.Contains(method, "GetStatus") {
				ctx = metadata.AppendToOutgoingContext(ctx, "schedd-consistency", "linearizable")
			}
			return call(ctx, method, req, reply, cc, opts...)
		}))
	conn, err := grpc.NewClient("passthrough:///"+address, options...)
	if err != nil {
		w.Fatal(err)
	}
	p.clients(conn)
}

// checkEverywhere holds every log against what was printed, as each member that
// is up serves it.
func (w *world) checkEverywhere() {
	w.Helper()
	any := w.primary
	defer func() { w.primary = any }()
	for _, m := range w.alive() {
		w.primary = m.own
		w.checkAll()
	}
}

// mend has all that there is be up and joined, and all clocks right.
func (w *world) mend() {
	w.Helper()
	w.net.unmute()
	for _, m := range w.group {
		m.isolate(false)
		m.link.mend()
		m.resume()
		m.clock.right()
		m.disk.Fail(nil)
		m.w.net.troubles.ends("ailing", m.host, "")
		m.files.free()
		m.breakLogs(false)
		if m.server == nil {
			m.start()
		}
	}
	for _, k := range w.workers {
		k.link.mend()
		k.resume()
		k.clock.right()
		k.files.free()
		k.host.SetUnable(nil)
		if k.life == nil {
			k.start()
		}
	}
}

// calm mends all, and waits until there is a leader and all workers are online.
func (w *world) calm() {
	w.Helper()
	w.mend()
	w.awaitLeader()
	w.awaitOnline()
	synctest.Wait()
}
