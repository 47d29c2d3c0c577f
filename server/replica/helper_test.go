package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/server/runlog"
)

// TestMain puts the logs in memory where that is possible: the clock of a bubble
// stands still during an fsync, so a slow disk only takes time.
func TestMain(m *testing.M) {
	const memory = "/dev/shm"
	if probe, err := os.CreateTemp(memory, "replica"); err == nil && os.Getenv("TMPDIR") == "" {
		_ = probe.Close()
		_ = os.Remove(probe.Name())
		_ = os.Setenv("TMPDIR", memory)
	}
	os.Exit(m.Run())
}

// try is what testing.T and rapid.T have in common.
type try interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

// world is a group of primaries and what lies between them.
type world struct {
	try
	dir  string
	tail *bytes.Buffer

	mu      sync.Mutex // guards all below, and node.up
	nodes   map[string]*node
	members []string
	known   map[runlog.Key]int64 // by the replicated state
	walls   map[[2]string]bool   // from, to: can't be reached
	frozen  map[string]bool      // takes calls and does not answer
	hung    map[string]bool      // methods of which nobody answers
	losing  func() (request, answer bool)
	calls   map[string]int // by method
}

// node is one primary.
type node struct {
	*Store
	world  *world
	id     string
	disk   *runlog.Store
	server *grpc.Server
	port   *port
	stop   context.CancelFunc
	wg     sync.WaitGroup
	up     bool
	conns  map[string]*grpc.ClientConn
	looked int // how often it has asked for all that is remembered; the world's lock guards it
}

// story tells a story in a bubble about a group of primaries a, b, c, ...
func story(t *testing.T, size int, tell func(t *testing.T, w *world)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dir, size)
		defer func() {
			w.close()
			if t.Failed() {
				t.Logf("the story so far:\n%s", w.tail)
			}
		}()
		tell(t, w)
	})
}

func newWorld(t try, dir string, size int) *world {
	w := &world{
		try: t, dir: dir, nodes: map[string]*node{}, known: map[runlog.Key]int64{}, walls: map[[2]string]bool{},
		frozen: map[string]bool{}, hung: map[string]bool{}, calls: map[string]int{}, tail: &bytes.Buffer{},
	}
	for i := range size {
		w.members = append(w.members, string(rune('a'+i)))
	}
	for _, id := range w.members {
		w.start(id)
	}
	return w
}

func (w *world) close() {
	for _, id := range slices.Sorted(maps.Keys(w.nodes)) {
		w.kill(id)
	}
}

// start starts a primary on the disk that it left.
func (w *world) start(id string) *node {
	w.Helper()
	log := slog.New(slog.NewTextHandler(&locked{w: w}, &slog.HandlerOptions{Level: slog.LevelDebug})).With("on", id)
	disk, err := runlog.Open(filepath.Join(w.dir, id), log)
	if err != nil {
		w.Fatalf("opening the logs of %s: %v", id, err)
	}
	n := &node{world: w, id: id, disk: disk, port: newPort(), server: grpc.NewServer(wire.ServerOptions()...), conns: map[string]*grpc.ClientConn{}}
	n.Store = New(Config{Logs: disk, Peers: n, Known: func(bool) iter.Seq2[runlog.Key, int64] { return n.remembers }, Log: log})
	peerv1.RegisterLogServiceServer(n.server, n.Service())
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	n.wg.Go(func() { n.Run(ctx) })
	n.wg.Go(func() { _ = n.server.Serve(n.port) })
	w.mu.Lock()
	defer w.mu.Unlock()
	n.up = true
	w.nodes[id] = n
	return n
}

// locked is the log of all.
type locked struct{ w *world }

func (l *locked) Write(p []byte) (int, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.w.tail.Write(p)
}

// said counts how often something was logged.
func (w *world) said(what string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.tail.String(), what)
}

// kill ends a primary as SIGKILL does: what was written stays on its disk.
func (w *world) kill(id string) {
	n := w.nodes[id]
	w.mu.Lock()
	was := n.up
	n.up = false
	conns := slices.Collect(maps.Values(n.conns))
	w.mu.Unlock()
	if !was {
		return
	}
	_ = n.port.Close()
	n.server.Stop()
	n.stop()
	for _, c := range conns {
		_ = c.Close()
	}
	n.wg.Wait()
	_ = n.disk.Close()
}

// replace starts a primary that is down with an empty disk.
func (w *world) replace(id string) {
	w.kill(id)
	if err := os.RemoveAll(filepath.Join(w.dir, id)); err != nil {
		w.Fatalf("%v", err)
	}
	w.start(id)
}

// regroup changes who is in the group.
func (w *world) regroup(ids ...string) {
	w.mu.Lock()
	w.members = ids
	var up []*node
	for _, n := range w.nodes {
		if n.up {
			up = append(up, n)
		}
	}
	w.mu.Unlock()
	for _, n := range up {
		n.MembersChanged()
	}
}

// freeze stops a primary, as SIGSTOP does, or lets it go on.
func (w *world) freeze(id string, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frozen[id] = on
}

// hang has nobody answer a method, or everybody again.
func (w *world) hang(method string, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hung[method] = on
}

// lose has calls get lost, as may says for each of them, one at a time; nil: no
// more.
func (w *world) lose(may func() (request, answer bool)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.losing = may
}

// wall cuts, or mends, the way between two primaries.
func (w *world) wall(a, b string, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.walls[[2]string{a, b}], w.walls[[2]string{b, a}] = on, on
}

// remember has all know of an attempt.
func (w *world) remember(k runlog.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.known[k]; !ok {
		w.known[k] = -1
	}
}

// forget has all forget all attempts.
func (w *world) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known = map[runlog.Key]int64{}
}

// end says that an attempt has ended, as all primaries hear.
func (w *world) end(k runlog.Key, length int64) {
	w.mu.Lock()
	w.known[k] = length
	var up []*node
	for _, n := range w.nodes {
		if n.up {
			up = append(up, n)
		}
	}
	w.mu.Unlock()
	for _, n := range up {
		if err := n.Seal(k, length); err != nil && !errors.Is(err, runlog.ErrSealed) {
			w.Fatalf("seal: %v", err)
		}
	}
}

func (w *world) count(method string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[method]
}

func (n *node) remembers(yield func(k runlog.Key, length int64) bool) {
	n.world.mu.Lock()
	known := maps.Clone(n.world.known)
	n.looked++
	n.world.mu.Unlock()
	for k, length := range known {
		if !yield(k, length) {
			return
		}
	}
}

func (n *node) Self() string { return n.id }

func (n *node) Members() []string {
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	return slices.Clone(n.world.members)
}

func (n *node) LogConn(id string) (grpc.ClientConnInterface, error) {
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	if c := n.conns[id]; c != nil {
		return c, nil
	}
	if !n.up {
		return nil, net.ErrClosed
	}
	way := way{n.world, n.id, id}
	options := append(wire.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(way.dial),
		grpc.WithUnaryInterceptor(way.call), grpc.WithStreamInterceptor(way.stream))
	c, err := grpc.NewClient("passthrough:///"+id, options...)
	if err == nil {
		n.conns[id] = c
	}
	return c, err
}

// way is from one primary to another.
type way struct {
	world    *world
	from, to string
}

func (y way) dial(ctx context.Context, _ string) (net.Conn, error) {
	y.world.mu.Lock()
	n := y.world.nodes[y.to]
	ok := n != nil && n.up && !y.world.walls[[2]string{y.from, y.to}]
	y.world.mu.Unlock()
	if !ok {
		return nil, errors.New("connection refused")
	}
	return n.port.DialContext(ctx)
}

// meet is what happens to a call on its way.
func (y way) meet(ctx context.Context, method string) (loseAnswer bool, err error) {
	w := y.world
	w.mu.Lock()
	method = method[strings.LastIndex(method, "/")+1:]
	w.calls[method]++
	frozen, cut := w.frozen[y.to] || w.hung[method], w.walls[[2]string{y.from, y.to}]
	var lost bool
	if w.losing != nil {
		lost, loseAnswer = w.losing()
	}
	w.mu.Unlock()
	if frozen {
		<-ctx.Done()
		return false, ctx.Err()
	}
	if cut {
		return false, errors.New("no route to host")
	}
	if lost {
		return false, errors.New("request was lost")
	}
	return loseAnswer, nil
}

func (y way) call(ctx context.Context, method string, req, resp any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	lost, err := y.meet(ctx, method)
	if err != nil {
		return err
	}
	err = invoke(ctx, method, req, resp, conn, opts...)
	if lost && err == nil {
		return errors.New("answer was lost")
	}
	return err
}

func (y way) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if _, err := y.meet(ctx, method); err != nil {
		return nil, err
	}
	return streamer(ctx, desc, conn, method, opts...)
}

// port is where a primary listens, in memory. It makes no timers, as bufconn
// does: several that fire at once in a bubble make the race detector crash.
type port struct {
	conns  chan net.Conn
	closed chan struct{}
	close  sync.Once
}

func newPort() *port { return &port{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *port) DialContext(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *port) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *port) Close() error {
	p.close.Do(func() { close(p.closed) })
	return nil
}

func (p *port) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

// output is what an attempt prints from one offset to another: the same at each
// call, and different everywhere.
func output(k runlog.Key, from, to int64) []byte {
	seed := uint64(runlog.Checksum([]byte(k.String())))
	first := from &^ 7 // it is made in words of eight bytes
	b := make([]byte, (to-first+7)&^7)
	for i := 0; i < len(b); i += 8 {
		at := uint64(first)>>3 + uint64(i)>>3
		binary.LittleEndian.PutUint64(b[i:], (at+seed)*0x9e3779b97f4a7c15)
	}
	return b[from-first : to-first]
}

// send appends what an attempt printed, as its worker's session does.
func (n *node) send(k runlog.Key, from, to int64) (known int64, err error) {
	n.world.remember(k)
	data := output(k, from, to)
	return n.Append(k, from, data, runlog.Checksum(data))
}

// ask asks how much is known, as a session does first.
func (n *node) ask(k runlog.Key) (int64, error) { return n.Append(k, 0, nil, 0) }

// write appends and syncs what must be taken.
func (w *world) write(id string, k runlog.Key, from, to int64) {
	w.Helper()
	n := w.nodes[id]
	if known, err := n.send(k, from, to); err != nil || known < to {
		w.Fatalf("%s: append %v [%d,%d): known %d, %v", id, k, from, to, known, err)
	}
	if durable, err := n.Sync(context.Background(), k); err != nil || durable < to {
		w.Fatalf("%s: sync %v: %d, %v, want %d", id, k, durable, err, to)
	}
}

// check reads a log on a primary, which fetches it, and expects so much of it.
func (w *world) check(id string, k runlog.Key, want int64) {
	w.Helper()
	n := w.nodes[id]
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.Fetch(ctx, k); err != nil {
		w.Fatalf("%s: %v", id, err)
	}
	w.holds(id, k, want)
}

// holds expects a primary to have so much of a log without asking anybody.
func (w *world) holds(id string, k runlog.Key, want int64) {
	w.Helper()
	got := w.content(id, k)
	if int64(len(got)) != want || !bytes.Equal(got, output(k, 0, want)) {
		w.Fatalf("%s has %d bytes of %v, want %d; as printed: %v", id, len(got), k, want, bytes.Equal(got, output(k, 0, int64(len(got)))))
	}
}

func (w *world) content(id string, k runlog.Key) []byte {
	w.Helper()
	n := w.nodes[id]
	info, _ := n.Stat(k)
	got := make([]byte, info.Known)
	if size, err := n.Read(k, got, 0); size < len(got) {
		w.Fatalf("%s: read %v: %d of %d bytes, %v", id, k, size, len(got), err)
	}
	return got
}

// soon waits until something is so.
func (w *world) soon(what string, limit time.Duration, is func() bool) {
	w.Helper()
	for end := time.Now().Add(limit); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("%s: not within %v", what, limit)
		}
	}
}

// kept counts what a primary keeps in memory of logs.
func (n *node) kept() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := len(n.entries) + n.whole.Len() + len(n.sealed)
	for _, l := range n.links {
		all += len(l.queue.state) + len(l.questions)
	}
	return all
}

func (n *node) length(k runlog.Key) int64 {
	info, _ := n.disk.Stat(k)
	return info.Known
}

func key(i int) runlog.Key {
	return runlog.Key{Run: fmt.Sprintf("run-%d", i), Attempt: 1, Fence: uint64(i) + 5}
}
