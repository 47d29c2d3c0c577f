package runlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

const chunk = 16 << 10 // what a worker sends at a time

func benchStore(b *testing.B) *Store {
	b.Helper()
	s := openWith(b, b.TempDir(), (*os.File).Sync)
	b.Cleanup(func() { s.Close() })
	return s
}

// BenchmarkWrite compares one log of 64 MiB in chunks of 16 KiB with the same
// writes to a bare file, by turns, so that both meet the same weather. With
// fsync both are durable at their end; without it the disk is not asked, and
// what remains is the page cache and the store itself.
func BenchmarkWrite(b *testing.B) {
	for name, fsync := range map[string]func(*os.File) error{
		"durable": (*os.File).Sync,
		"cached":  func(*os.File) error { return nil },
	} {
		b.Run(name, func(b *testing.B) {
			const size = 64 << 20
			s := openWith(b, b.TempDir(), fsync)
			b.Cleanup(func() { s.Close() })
			var raw, ours time.Duration
			for i := range b.N {
				raw += timed(b, func() error { return writeRaw(filepath.Join(b.TempDir(), "raw"), size, fsync) })
				k := Key{Run: "bench", Attempt: uint32(i)}
				ours += timed(b, func() error { return writeLog(s, k, size) })
			}
			rate := func(d time.Duration) float64 { return float64(b.N) * size / 1e6 / d.Seconds() }
			b.ReportMetric(rate(raw), "raw-MB/s")
			b.ReportMetric(rate(ours), "runlog-MB/s")
			b.ReportMetric(rate(ours)/rate(raw), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func timed(b *testing.B, f func() error) time.Duration {
	b.Helper()
	start := time.Now()
	if err := f(); err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}

func writeRaw(path string, size int64, fsync func(*os.File) error) error {
	data := printed(key, 0, chunk)
	f, err := os.Create(path)
	for off := int64(0); err == nil && off < size; off += chunk {
		_, err = f.WriteAt(data, off)
	}
	if err != nil {
		return err
	}
	return errors.Join(fsync(f), f.Close(), os.Remove(path))
}

func writeLog(s *Store, k Key, size int64) error {
	data := printed(key, 0, chunk)
	sum := Checksum(data)
	for off := int64(0); off < size; off += chunk {
		if _, err := s.Append(k, off, data, sum); err != nil {
			return err
		}
	}
	_, err := s.Sync(context.Background(), k)
	return errors.Join(err, s.Remove(k))
}

// BenchmarkRead compares reading 64 MiB back with reading a bare file.
func BenchmarkRead(b *testing.B) {
	const size = 64 << 20
	data := printed(key, 0, MaxAppend)
	p := make([]byte, 64<<10)
	b.Run("raw", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "raw"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		for range size / MaxAppend {
			if _, err := f.Write(data); err != nil {
				b.Fatal(err)
			}
		}
		b.SetBytes(int64(len(p)))
		for i := range b.N {
			if _, err := f.ReadAt(p, int64(i)*int64(len(p))%size); err != nil {
				b.Fatal(err)
			}
		}
	})
	s := benchStore(b)
	for off := int64(0); off < size; off += chunk {
		put(b, s, key, off, data[off%MaxAppend:off%MaxAppend+chunk])
	}
	b.Run("runlog", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		for i := range b.N {
			if _, err := s.Read(key, p, int64(i)*int64(len(p))%size); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("follow", func(b *testing.B) {
		b.SetBytes(size)
		if err := s.Seal(key, size); err != nil {
			b.Fatal(err)
		}
		for range b.N {
			if err := s.Follow(context.Background(), key, 0, func(_ int64, c []byte) error { _, err := io.Discard.Write(c); return err }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("first open", func(b *testing.B) { // reads all of it through
		b.SetBytes(size)
		dir := filepath.Dir(s.shards[0].path)
		s.Close()
		for range b.N {
			s = openWith(b, dir, (*os.File).Sync)
			if i, ok := s.Stat(key); !ok || i.Known != size {
				b.Fatal(i, ok)
			}
			s.Close()
		}
	})
}

// BenchmarkHundredJobs is 100 jobs that print 1 MB each, synced every 64 KiB, as
// with a worker's credit. MB/s is of all together; 100 is what is needed.
func BenchmarkHundredJobs(b *testing.B) {
	const jobs, size = 100, 1 << 20
	data := printed(key, 0, chunk)
	sum := Checksum(data)
	s := benchStore(b)
	b.SetBytes(jobs * size)
	for i := range b.N {
		var all sync.WaitGroup
		for j := range jobs {
			k := Key{Run: fmt.Sprintf("job-%d", j), Attempt: uint32(i)}
			all.Go(func() {
				for off := int64(0); off < size; off += chunk {
					if _, err := s.Append(k, off, data, sum); err != nil {
						b.Error(err)
					}
					if (off+chunk)%(64<<10) == 0 {
						if _, err := s.Sync(context.Background(), k); err != nil {
							b.Error(err)
						}
					}
				}
			})
		}
		all.Wait()
	}
}

// BenchmarkSmallLogs is the life of a log of one line: appended, sealed, synced, by
// 64 callers at a time; raw is a bare file, fsync'ed without its directory.
func BenchmarkSmallLogs(b *testing.B) {
	line := []byte("all is well\n")
	each := func(b *testing.B, f func(k Key) error) {
		var callers sync.WaitGroup
		next := make(chan Key)
		for range 64 {
			callers.Go(func() {
				for k := range next {
					if err := f(k); err != nil {
						b.Error(err)
					}
				}
			})
		}
		for i := range b.N {
			next <- Key{Run: fmt.Sprintf("small-%d", i), Attempt: 1}
		}
		close(next)
		callers.Wait()
	}
	for _, durable := range []bool{false, true} {
		b.Run(fmt.Sprintf("raw/durable=%v", durable), func(b *testing.B) {
			dir := b.TempDir()
			each(b, func(k Key) error {
				f, err := os.Create(filepath.Join(dir, k.String()))
				if err != nil {
					return err
				}
				_, err = f.Write(line)
				if durable {
					err = errors.Join(err, f.Sync())
				}
				return errors.Join(err, f.Close())
			})
		})
		b.Run(fmt.Sprintf("runlog/durable=%v", durable), func(b *testing.B) {
			s := benchStore(b)
			each(b, func(k Key) error {
				_, err := s.Append(k, 0, line, Checksum(line))
				err = errors.Join(err, s.Seal(k, int64(len(line))))
				if durable {
					_, syncErr := s.Sync(context.Background(), k)
					err = errors.Join(err, syncErr)
				}
				return err
			})
		})
	}
}

// BenchmarkSealEmpty is what a job that prints nothing costs.
func BenchmarkSealEmpty(b *testing.B) {
	s := benchStore(b)
	for i := range b.N {
		if err := s.Seal(Key{Run: "quiet", Attempt: uint32(i)}, 0); err != nil {
			b.Fatal(err)
		}
	}
}
