package replica

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/server/runlog"
)

var silent = slog.New(slog.DiscardHandler)

// disk is where files are on a disk, and not in memory as TestMain has it.
var disk = os.TempDir()

// loopback is a group over TCP on one host, and on one disk.
type loopback struct {
	self  string
	conns map[string]*grpc.ClientConn
}

func (l loopback) Self() string { return l.self }

func (l loopback) Members() []string {
	ids := []string{l.self}
	for id := range l.conns {
		ids = append(ids, id)
	}
	return ids
}

func (l loopback) LogConn(id string) (grpc.ClientConnInterface, error) { return l.conns[id], nil }

// benchGroup returns the first of so many stores that run.
func benchGroup(b *testing.B, size int) *Store {
	b.Helper()
	b.Setenv("TMPDIR", disk)
	home := b.TempDir()
	conns := map[string]*grpc.ClientConn{}
	listeners := map[string]net.Listener{}
	for i := range size {
		id := fmt.Sprintf("p%d", i)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		listeners[id] = l
		c, err := grpc.NewClient(l.Addr().String(), append(wire.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		conns[id] = c
	}
	var first *Store
	for id, l := range listeners {
		logs, err := runlog.Open(filepath.Join(home, id), silent)
		if err != nil {
			b.Fatal(err)
		}
		others := map[string]*grpc.ClientConn{}
		for other, c := range conns {
			if other != id {
				others[other] = c
			}
		}
		s := New(Config{Logs: logs, Peers: loopback{id, others}, Known: func(bool) iter.Seq2[runlog.Key, int64] { return func(func(runlog.Key, int64) bool) {} }, Log: silent})
		server := grpc.NewServer(wire.ServerOptions()...)
		peerv1.RegisterLogServiceServer(server, s.Service())
		ctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { _ = server.Serve(l) })
		wg.Go(func() { s.Run(ctx) })
		b.Cleanup(func() {
			stop()
			server.Stop()
			wg.Wait()
			logs.Close()
		})
		first = s
	}
	return first
}

// BenchmarkAppendSync is what it costs a gateway to make a chunk durable, alone
// and in a group of three on one disk: for one worker, and for 64 at a time.
func BenchmarkAppendSync(b *testing.B) {
	for _, size := range []int{1, 3} {
		for _, workers := range []int{1, 64} {
			b.Run(fmt.Sprintf("primaries=%d/workers=%d", size, workers), func(b *testing.B) {
				s := benchGroup(b, size)
				data := make([]byte, 16<<10)
				crc := runlog.Checksum(data)
				b.SetBytes(int64(len(data)))
				b.ResetTimer()
				var wg sync.WaitGroup
				for w := range workers {
					wg.Go(func() {
						for i := w; i < b.N; i += workers {
							off := int64(i/workers) * int64(len(data))
							if _, err := s.Append(key(w), off, data, crc); err != nil {
								b.Error(err)
								return
							}
							if _, err := s.Sync(context.Background(), key(w)); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
			})
		}
	}
}

// BenchmarkFirstAppend is what the first output of an attempt costs, with the
// question about it: 64 attempts at a time.
func BenchmarkFirstAppend(b *testing.B) {
	for _, size := range []int{1, 3} {
		b.Run(fmt.Sprintf("primaries=%d", size), func(b *testing.B) {
			s := benchGroup(b, size)
			data := []byte("hello\n")
			crc := runlog.Checksum(data)
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range 64 {
				wg.Go(func() {
					for i := w; i < b.N; i += 64 {
						if _, err := s.Append(key(i), 0, nil, 0); err != nil {
							b.Error(err)
							return
						}
						if _, err := s.Append(key(i), 0, data, crc); err != nil {
							b.Error(err)
							return
						}
						if _, err := s.Sync(context.Background(), key(i)); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
