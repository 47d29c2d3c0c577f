package history

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

// circle is primaries that can reach each other, in a bubble.
type circle struct {
	t     *testing.T
	mu    sync.Mutex
	all   map[string]*Store
	conns map[string]*grpc.ClientConn
	down  map[string]bool
	cuts  map[string]bool // the next call of one is cut off after a message
}

func newCircle(t *testing.T) *circle {
	return &circle{t: t, all: map[string]*Store{}, conns: map[string]*grpc.ClientConn{}, down: map[string]bool{}, cuts: map[string]bool{}}
}

// peersOf is the circle as one of them sees it.
type peersOf struct {
	*circle
	self string
}

func (p peersOf) Others() (ids []string, in bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.all {
		if id != p.self {
			ids = append(ids, id)
		}
	}
	return ids, true
}

func (p peersOf) HistoryConn(id string) (grpc.ClientConnInterface, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down[id] {
		return nil, errors.New("it is down")
	}
	return p.conns[id], nil
}

func (c *circle) setDown(id string, down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down[id] = down
}

// cutOff ends a call of one after its first message, once, if that is asked for.
func (c *circle) cutOff(id string) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		c.mu.Lock()
		cut := c.cuts[id]
		delete(c.cuts, id)
		c.mu.Unlock()
		if cut {
			stream = &shortStream{ServerStream: stream}
		}
		return handle(srv, stream)
	}
}

// shortStream takes one message.
type shortStream struct {
	grpc.ServerStream
	full bool
}

func (s *shortStream) SendMsg(m any) error {
	if s.full {
		return status.Error(codes.Unavailable, "cut off")
	}
	s.full = true
	return s.ServerStream.SendMsg(m)
}

// join adds a primary; those that are to be in from the beginning are named first.
func (c *circle) join(id string, s *Store) {
	listener := bufconn.Listen(64 << 10)
	g := grpc.NewServer(grpc.StreamInterceptor(c.cutOff(id)))
	peerv1.RegisterHistoryServiceServer(g, s.Service())
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(listener) })
	conn, err := grpc.NewClient("passthrough:///"+id, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.all[id], c.conns[id] = s, conn
	c.mu.Unlock()
	ctx, stop := context.WithCancel(context.Background())
	wg.Go(func() { s.Tend(ctx, peersOf{c, id}) })
	c.t.Cleanup(func() {
		stop()
		conn.Close()
		g.Stop()
		wg.Wait()
		if err := s.Close(); err != nil {
			c.t.Error(err)
		}
	})
}

// stateAt is a state at a point, in which nothing is left of what ended.
func stateAt(n int) *shared {
	p := at(n)
	return &shared{state: (&state.Snapshot{Index: p.Index, Now: p.Now, ClusterID: p.Cluster, Serial: p.Index}).Restore()}
}

func numbers(from, to int) (runs []*state.Run) {
	for n := from; n < to; n++ {
		runs = append(runs, aRun(n))
	}
	return runs
}

// has tells how many runs a history has, and whether it is whole.
func has(t *testing.T, s *Store) (runs int, missing string, lost int) {
	t.Helper()
	list, err := s.List(context.Background(), Query{Limit: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	return len(list), s.Missing(), s.Stats().Lost
}

// A primary that joins is given a snapshot, and then the history from the others; one
// that was away for a while gets what it missed, also in pieces from several.
func TestGapsAreFilled(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const n = 3000
		c := newCircle(t)
		a := begin(filepath.Join(dir, "a"), generous, stateAt(n))
		a.Ended(at(n-1), numbers(0, n))
		c.join("a", a)

		// It begins with a snapshot in which the last ten are still.
		b := New(Config{Dir: filepath.Join(dir, "b"), Keep: generous, Clock: time.Now, Filled: func() {}, Log: quiet()})
		b.Restored(raftstore.Restoration{At: at(n - 1), Runs: numbers(n-10, n), Unseen: true})
		b.Start(stateAt(n).View)
		time.Sleep(10 * time.Second) // nobody to ask yet
		if runs, missing, _ := has(t, b); runs != 10 || !strings.Contains(missing, "still being given") {
			t.Errorf("before it asked: %d runs, missing %q", runs, missing)
		}
		if r, err := b.Run(t.Context(), aRun(5).ID); !errors.Is(err, ErrUnavailable) {
			t.Errorf("a run that it may yet be given: %v, %v", r, err)
		}
		c.setDown("a", true)
		c.join("b", b)
		time.Sleep(5 * time.Minute)
		if runs, missing, lost := has(t, b); runs != 10 || missing == "" || lost != 0 {
			t.Errorf("while nobody could be asked: %d runs, missing %q, lost %d", runs, missing, lost)
		}
		c.setDown("a", false)
		time.Sleep(time.Minute)
		if runs, missing, lost := has(t, b); runs != n || missing != "" || lost != 0 {
			t.Errorf("afterwards: %d runs of %d, missing %q, lost %d", runs, n, missing, lost)
		}

		// While it is away, 100 end; then it has them from a, but for those that a
		// itself has not seen, which it has from d.
		b.Restored(raftstore.Restoration{At: at(n + 99), Runs: nil, Unseen: true})
		d := begin(filepath.Join(dir, "d"), generous, stateAt(n+200))
		d.Ended(at(n+99), numbers(n, n+100))
		c.join("d", d)
		a.Ended(at(n+39), numbers(n, n+40))
		a.Restored(raftstore.Restoration{At: at(n + 99), Runs: nil, Unseen: true})
		time.Sleep(5 * time.Minute)
		for id, s := range map[string]*Store{"a": a, "b": b} {
			if runs, missing, lost := has(t, s); runs != n+100 || missing != "" || lost != 0 {
				t.Errorf("%s after a break: %d runs of %d, missing %q, lost %d", id, runs, n+100, missing, lost)
			}
		}
	})
}

// What nobody has is said to be lost, and asked for no more; also over a restart.
func TestWhatNobodyHasIsLost(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		st := stateAt(100)
		s := New(Config{Dir: dir, Keep: generous, Clock: time.Now, Filled: func() {}, Log: quiet()})
		s.Restored(raftstore.Restoration{At: at(99), Runs: numbers(90, 100), Unseen: true})
		s.Start(st.View)
		c := newCircle(t)
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { s.Tend(ctx, peersOf{c, "a"}) })
		time.Sleep(time.Minute)
		if runs, missing, lost := has(t, s); runs != 10 || missing != "" || lost != 1 {
			t.Errorf("%d runs, missing %q, lost %d; want 10, nothing to be had, one gap", runs, missing, lost)
		}
		s.staysLost(t, "at first")
		stop()
		wg.Wait()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = begin(dir, generous, st)
		want := []Gap{{Last: at(99).Now, Lost: true}}
		if got := s.Gaps(); !slices.EqualFunc(got, want, Gap.equal) {
			t.Errorf("after a restart: %v, want %v", got, want)
		}
		s.Ended(at(150), numbers(100, 151))
		flush(t, s)
		s.staysLost(t, "after a restart")

		// Once it would be too old to be kept, nobody needs to hear of it.
		if _, err := s.Sweep(t.Context(), at(99).Now.Add(generous.Age)); err != nil {
			t.Fatal(err)
		}
		if s.Lost(time.Time{}) == "" {
			t.Error("it is forgotten before what was lost would have been")
		}
		if _, err := s.Sweep(t.Context(), at(100).Now.Add(generous.Age)); err != nil {
			t.Fatal(err)
		}
		r, err := s.Run(t.Context(), aRun(5).ID)
		if lost := s.Lost(time.Time{}); r != nil || err != nil || lost != "" || s.MayLack(100) {
			t.Errorf("when it has grown old: %v, %v, lost %q", r, err, lost)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// staysLost sees that who asks hears of what no primary has: the runs that ended before
// the hundredth did, when the greatest serial number was 101.
func (s *Store) staysLost(t *testing.T, when string) {
	t.Helper()
	if r, err := s.Run(t.Context(), aRun(5).ID); r != nil || !errors.Is(err, state.ErrLost) || !strings.Contains(err.Error(), "until 2030-01-01T12:01:44Z") {
		t.Errorf("%s: a run that is lost: %v, %v", when, r, err)
	}
	if r, err := s.Run(t.Context(), aRun(95).ID); r == nil || err != nil {
		t.Errorf("%s: a run that is there: %v, %v", when, r, err)
	}
	if s.Lost(time.Time{}) == "" || s.Lost(at(98).Now) == "" || s.Lost(at(99).Now) != "" {
		t.Errorf("%s: of all it lacks %q, of those created later %q", when, s.Lost(time.Time{}), s.Lost(at(99).Now))
	}
	if !s.MayLack(101) || s.MayLack(102) {
		t.Errorf("%s: output that may be of a lost run is not told from younger: begun %d", when, s.begun)
	}
}

// An older version loses what this one did not, and does not say since when: then any
// output may be of a lost run. That nothing was lost before must not hide it.
func TestLossOfAnOlderVersion(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const n = 100
		s := begin(dir, generous, stateAt(n))
		s.Restored(raftstore.Restoration{At: at(n - 1), Unseen: true})
		flush(t, s)
		if err := s.replace(t.Context(), s.Gaps()[0], nil, numbers(0, n)); err != nil { // as another primary has all
			t.Fatal(err)
		}
		if s.MayLack(1) {
			t.Error("it may lack what another primary gave it")
		}
		_, err := s.db.write.ExecContext(t.Context(), "INSERT INTO gaps VALUES (?, ?, 1)", nanos(at(5).Now), nanos(at(9).Now))
		if err := errors.Join(err, s.Close()); err != nil {
			t.Fatal(err)
		}
		s = begin(dir, generous, stateAt(n))
		if !s.MayLack(7) || !s.MayLack(1<<40) {
			t.Errorf("the older version lost runs, and output is taken for that of none: begun %d", s.begun)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// Where no run ends for hours, the file still tells how far the log is, however the
// primary ends. So one that starts from a snapshot of its own log, as after "schedd
// recover", lacks nothing, and alone it loses nothing.
func TestIdleHistoryKeepsUpWithItsLog(t *testing.T) {
	for name, end := range map[string]func(*Store) error{"stopped": (*Store).Close, "killed": (*Store).abandon} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				const n, last = 10, 10_000
				st := &shared{state: (&state.Snapshot{Index: at(last).Index, Now: at(last).Now, ClusterID: "c", Serial: n}).Restore()}
				s := begin(dir, generous, st)
				s.Ended(at(n-1), numbers(0, n))
				for i := n; i <= last; i++ {
					time.Sleep(time.Second)
					s.Ended(at(i), nil)
				}
				if err := end(s); err != nil {
					t.Fatal(err)
				}
				s = begin(dir, generous, st)
				if held := s.Held(); name == "stopped" && !held.Equal(at(last).Now) {
					t.Errorf("it was stopped in order, and tells what ended until %v of %v", held, at(last).Now)
				}
				s.losesNothing(t, raftstore.Restoration{At: at(last), Unseen: true}, n)
			})
		})
	}
}

// A snapshot that is ahead of the history by less than runs stay in the state has all
// that the history lacks.
func TestSnapshotThatIsALittleAhead(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const n, ahead = 50, 50
		s := begin(dir, generous, stateAt(n+ahead))
		s.Ended(at(n-1), numbers(0, n))
		flush(t, s)
		s.losesNothing(t, raftstore.Restoration{At: at(n + ahead - 1), Runs: numbers(n, n+ahead), Unseen: true}, n+ahead)
	})
}

// losesNothing gives a primary that is alone a snapshot, and sees that it has so many
// runs then, and says of none that it may be lost.
func (s *Store) losesNothing(t *testing.T, r raftstore.Restoration, runs int) {
	t.Helper()
	s.Restored(r)
	newCircle(t).join("alone", s)
	time.Sleep(2 * time.Minute)
	if got, missing, lost := has(t, s); got != runs || missing != "" || lost != 0 {
		t.Errorf("%d runs of %d, missing %q, lost %d: %q", got, runs, missing, lost, s.Lost(time.Time{}))
	}
	if r, err := s.Run(t.Context(), state.RequestRunID(77, "never")); r != nil || err != nil || s.MayLack(1) {
		t.Errorf("a run that never was: %v, %v", r, err)
	}
}

// spoil writes nonsense over the middle of the file.
func spoil(t *testing.T, dir string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, fileName), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	for off := int64(8192); off < i.Size(); off += 4096 {
		if _, err := f.WriteAt([]byte(strings.Repeat("\xff\x00nonsense", 400)), off); err != nil {
			t.Fatal(err)
		}
	}
}

// A file that is damaged, or is none, is set aside; what the state has is written anew,
// what others have is got from them, and scheduling never notices.
func TestDamagedFile(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(t *testing.T, dir string)
	}{
		{"its middle is nonsense", spoil},
		{"it is no database", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, fileName), []byte(strings.Repeat("this is no database ", 1000)), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"it is cut off", func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, fileName), 5000); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				const n = 2000
				c := newCircle(t)
				other := begin(filepath.Join(dir, "other"), generous, stateAt(n))
				other.Ended(at(n-1), numbers(0, n))
				mine := filepath.Join(dir, "mine")
				s := begin(mine, generous, stateAt(n))
				s.Ended(at(n-1), numbers(0, n))
				time.Sleep(10 * time.Second)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}

				test.damage(t, mine)
				hot := stateAt(n)
				hot.state = (&state.Snapshot{Index: at(n - 1).Index, Now: at(n - 1).Now, ClusterID: "c", Serial: n, Runs: numbers(n-10, n)}).Restore()
				s = begin(mine, generous, hot)
				_, _ = s.List(t.Context(), Query{Limit: n}) // somebody, or the next write, finds it out
				s.Ended(at(n), numbers(n, n+1))
				time.Sleep(time.Minute)
				if err := s.Fault(); err != nil {
					t.Errorf("it is still at fault: %v", err)
				}
				if runs, missing, _ := has(t, s); runs != 11 || missing == "" {
					t.Errorf("alone it has %d runs, missing %q; want those of the state, the new one, and a word", runs, missing)
				}
				if files, _ := filepath.Glob(filepath.Join(mine, "*.damaged")); len(files) != 1 {
					t.Errorf("set aside: %v", files)
				}
				other.Ended(at(n), nil) // it is as far
				c.join("other", other)
				c.join("mine", s)
				time.Sleep(5 * time.Minute)
				if runs, missing, lost := has(t, s); runs != n+1 || missing != "" || lost != 0 {
					t.Errorf("afterwards: %d runs of %d, missing %q, lost %d", runs, n+1, missing, lost)
				}
			})
		})
	}
}

// While nothing can be written, all that ends is kept and shown, the leader is told to
// forget nothing, and it is written as soon as it can be.
func TestDiskThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "history")
	synctest.Test(t, func(t *testing.T) {
		if err := os.WriteFile(dir, nil, 0o600); err != nil { // in the way of the directory
			t.Fatal(err)
		}
		s := begin(dir, generous, newShared())
		s.Ended(at(9), numbers(0, 10))
		time.Sleep(time.Minute)
		if s.Fault() == nil || !s.Held().IsZero() || !s.Stats().Failed {
			t.Errorf("fault %v, held up to %v", s.Fault(), s.Held())
		}
		if r, err := s.Run(t.Context(), aRun(3).ID); r == nil || err != nil {
			t.Errorf("what waits to be written: %v, %v", r, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Flush(ctx, at(9).Index); err == nil {
			t.Error("it is said to be safe")
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if s.Fault() != nil || !s.Held().Equal(at(9).Now) {
			t.Errorf("afterwards: fault %v, held up to %v", s.Fault(), s.Held())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = begin(dir, generous, newShared())
		if runs, missing, lost := has(t, s); runs != 10 || missing != "" || lost != 0 {
			t.Errorf("on disk: %d runs, missing %q, lost %d", runs, missing, lost)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// The runs of another cluster are not shown as those of this one.
func TestHistoryOfAnotherCluster(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := begin(dir, generous, newShared())
		s.Ended(at(9), numbers(0, 10))
		time.Sleep(5 * time.Second)
		p := at(19)
		p.Cluster = "another"
		s.Ended(p, numbers(10, 20))
		time.Sleep(5 * time.Second)
		if runs, _, _ := has(t, s); runs != 10 {
			t.Errorf("%d runs are shown, want the ten of this cluster", runs)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if files, _ := filepath.Glob(filepath.Join(dir, "*.other-cluster")); len(files) != 1 {
			t.Errorf("set aside: %v", files)
		}
	})
}

// An older state that is put in place takes the runs along that are younger, and those
// that it has end anew.
func TestOlderStateIsRestored(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := begin(dir, generous, newShared())
		s.Ended(at(8), numbers(0, 9))
		time.Sleep(5 * time.Second)
		s.Ended(at(9), numbers(9, 10)) // waits
		s.Restored(raftstore.Restoration{At: at(20), Runs: numbers(0, 5), Undone: aRun(5).Serial})
		again, new := aRun(5), aRun(30) // the fifth was active then
		again.Finished = again.Finished.Add(time.Hour)
		s.Ended(at(21), []*state.Run{again, new})
		for _, when := range []string{"before it is written", "afterwards"} {
			list, err := s.List(t.Context(), Query{Limit: 100})
			if err != nil {
				t.Fatal(err)
			}
			if when == "afterwards" {
				want := []*state.Run{new, again, aRun(4), aRun(3), aRun(2), aRun(1), aRun(0)}
				if !gocmp.Equal(list, want) {
					t.Errorf("%s: %s", when, gocmp.Diff(list, want))
				}
			}
			if r, _ := s.Run(t.Context(), aRun(9).ID); r != nil {
				t.Errorf("%s: a run that never was is shown", when)
			}
			time.Sleep(5 * time.Second)
		}
		if missing, lost := s.Missing(), s.Stats().Lost; missing != "" || lost != 0 {
			t.Errorf("missing %q, lost %d", missing, lost)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestJoinedGaps(t *testing.T) {
	g := func(first, last int, lost bool) Gap { return Gap{at(first).Now, at(last).Now, lost} }
	got := joined([]Gap{g(5, 9, false), g(1, 3, false), g(2, 4, true), g(3, 4, false), g(9, 12, false), g(20, 21, true)})
	want := []Gap{g(1, 4, false), g(5, 12, false), g(2, 4, true), g(20, 21, true)}
	if !slices.EqualFunc(got, want, Gap.equal) {
		t.Errorf("joined: %v, want %v", got, want)
	}
	got = within(got, at(3).Now, at(6).Now)
	want = []Gap{g(3, 4, false), g(5, 6, false)}
	if !slices.EqualFunc(got, want, Gap.equal) {
		t.Errorf("within: %v, want %v", got, want)
	}
}
