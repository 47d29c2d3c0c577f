package history

import (
	"testing"
	"testing/synctest"
	"time"

	"modernc.org/sqlite"
)

// A history that has rested takes what comes, and answers, as before.
func TestRestedHistory(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const n, rounds = 1000, 3
		s := begin(dir, generous, newShared())
		for round := range rounds {
			s.Ended(at((round+1)*n-1), numbers(round*n, (round+1)*n))
			time.Sleep(3 * restAfter)
			if open := s.db.read.Stats().OpenConnections; open != 0 {
				t.Errorf("%d connections that read are open after %v", open, 3*restAfter)
			}
			if got, missing, lost := has(t, s); got != (round+1)*n || missing != "" || lost != 0 {
				t.Errorf("%d runs of %d, missing %q, lost %d", got, (round+1)*n, missing, lost)
			}
			if err := s.Fault(); err != nil {
				t.Error(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// What the connection that writes had read and written is not in memory any more when it
// has rested.
func TestRestGivesBackTheCache(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const n = 20_000
		s := begin(dir, generous, newShared())
		s.Ended(at(n-1), numbers(0, n))
		flush(t, s)
		before := cached(t, s)
		time.Sleep(2 * restAfter)
		if after := cached(t, s); after > before/4 {
			t.Errorf("the cache has %d bytes, and had %d at work", after, before)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// cached is how many bytes the pages have that the connection which writes has in memory.
func cached(t *testing.T, s *Store) (bytes int) {
	t.Helper()
	conn, err := s.db.write.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = conn.Raw(func(c any) (err error) {
		bytes, _, err = c.(sqlite.DBStatus).Status(sqlite.DBStatusCacheUsed, false)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}
