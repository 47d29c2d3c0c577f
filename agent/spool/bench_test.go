package spool

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// The price of a log, from its file to its removal, beside a bare file with the same in
// it, in turns, so that both see the same disk. What is printed is synced on both sides,
// and nothing is for what prints nothing. "cpu-ratio" is that of processor time, which a
// busy machine changes less:
//
//	go test -run xxx -bench Life -benchtime 20x ./agent/spool
func BenchmarkLife(b *testing.B) {
	for name, out := range map[string][]byte{"prints nothing": nil, "prints a line": []byte("hello, world\n")} {
		b.Run(name, func(b *testing.B) {
			s := openSpool(b, filepath.Join(b.TempDir(), "spool"))
			bare := b.TempDir()
			const batch = 200
			var took, used [2]time.Duration
			n := 0
			for b.Loop() {
				for i, life := range []func(string) error{
					func(id string) error { return bareLife(filepath.Join(bare, id), out) },
					func(id string) error { return logLife(s, Key{id, 1}, out) },
				} {
					began, before := time.Now(), processorTime()
					for range batch {
						n++
						if err := life(fmt.Sprint("run-", n)); err != nil {
							b.Fatal(err)
						}
					}
					took[i] += time.Since(began)
					used[i] += processorTime() - before
				}
			}
			each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N*batch) }
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(each(took[0]), "bare-µs")
			b.ReportMetric(each(took[1]), "ours-µs")
			b.ReportMetric(float64(took[1])/float64(took[0]), "ratio")
			b.ReportMetric(float64(used[1])/float64(used[0]), "cpu-ratio")
		})
	}
}

func bareLife(path string, out []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if len(out) > 0 {
		if _, err := f.Write(out); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Remove(path)
}

func logLife(s *Spool, k Key, out []byte) error {
	l, err := s.Create(k, MinLimit, s.Reserve())
	if err != nil {
		return err
	}
	if len(out) > 0 {
		if err := os.WriteFile(l.Path(), out, 0); err != nil {
			return err
		}
	}
	if _, _, err := l.Seal(); err != nil {
		return err
	}
	return l.Remove()
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
