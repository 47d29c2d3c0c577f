package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	fileName = "history.db"

	// schemaVersion is that of the file which this version writes, and the only one
	// that it reads.
	schemaVersion = 1

	// maxReaders bounds the connections that read, each of which has its own cache.
	maxReaders = 4

	// restAfter is how long nothing is written, or read, until the cache for that is given
	// back: up to forty megabytes in all.
	restAfter = 10 * time.Second
)

// schema makes an empty file. Runs are in the order of their serial numbers, which
// every index ends with, so that each of them gives its runs the newest first. All
// lists are cut by phase: one of all phases is a merge of a few sorted lists.
const schema = `
CREATE TABLE runs (
	serial    INTEGER PRIMARY KEY,
	id        BLOB    NOT NULL,
	uid       INTEGER NOT NULL,
	namespace TEXT    NOT NULL,
	job       TEXT    NOT NULL,
	trigger   TEXT    NOT NULL,
	phase     INTEGER NOT NULL,
	created   INTEGER NOT NULL,
	finished  INTEGER NOT NULL,
	late      INTEGER NOT NULL,
	record    BLOB    NOT NULL
);
CREATE UNIQUE INDEX by_id  ON runs (id);
CREATE INDEX by_job        ON runs (job, phase);
CREATE INDEX by_phase      ON runs (phase);
CREATE INDEX by_namespace  ON runs (namespace, phase);
CREATE INDEX by_created    ON runs (created);
CREATE INDEX by_finished   ON runs (finished);
CREATE TABLE workers (
	worker TEXT    NOT NULL,
	phase  INTEGER NOT NULL,
	serial INTEGER NOT NULL,
	PRIMARY KEY (worker, phase, serial)
) WITHOUT ROWID;
CREATE TABLE upto (one INTEGER PRIMARY KEY CHECK (one = 1), log_index INTEGER NOT NULL, now INTEGER NOT NULL, cluster TEXT NOT NULL);
CREATE TABLE gaps (first INTEGER NOT NULL, last INTEGER NOT NULL, lost INTEGER NOT NULL);
PRAGMA user_version = 1;
`

// added is what versions that know the schema need not know of: whether gaps are lost
// for good, and since when. Begun is the greatest serial number that there was then.
const added = `CREATE TABLE IF NOT EXISTS lost (one INTEGER PRIMARY KEY CHECK (one = 1), begun INTEGER NOT NULL)`

// database is the open file: one connection that writes, and some that read beside
// it, which the write-ahead log allows.
type database struct {
	write *sql.DB
	read  *sql.DB
}

// openDatabase opens the file in dir, which it makes when it is missing.
func openDatabase(ctx context.Context, dir string) (*database, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the directory of the history: %w", err)
	}
	path := filepath.Join(dir, fileName)
	size, err := sizeOf(path)
	if err != nil {
		return nil, err
	}
	d := &database{}
	// The cache holds most of the index by id, where each run is on another page: with
	// less, pages of half a million runs are read and written again and again.
	// FULL, as a run that this says it has may be forgotten by all others: NORMAL
	// loses the latest commits with the power.
	// The log is folded into the file from 16 MB on: pages that each transaction changes are
	// then written there once for several of them. Its file may keep what it has grown to,
	// so that it has its room when it begins anew.
	if d.write, err = connect(path, 1, "journal_mode(WAL)", "synchronous(FULL)", "cache_size(-32000)",
		"wal_autocheckpoint(4096)", "journal_size_limit(33554432)"); err != nil {
		return nil, err
	}
	if d.read, err = connect(path, maxReaders, "query_only(1)", "cache_size(-2000)", "temp_store(MEMORY)"); err != nil {
		return nil, errors.Join(err, d.close())
	}
	d.read.SetConnMaxIdleTime(restAfter)
	if err = d.prepare(ctx); err == nil {
		err = d.whole(ctx, size)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening %s: %w", path, err), d.close())
	}
	return d, nil
}

// sizeOf returns how long a file is; 0 when there is none.
func sizeOf(path string) (int64, error) {
	is, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("looking for the history: %w", err)
	}
	return is.Size(), nil
}

// errTorn says that the file ends within a page, and is not what was written.
var errTorn = errors.New("its end was lost")

// whole looks whether a file, which was as long as size before it was opened, is what was
// written. Of one that ends within a page SQLite takes the rest of that page for zeros, and
// says nothing: the rows that were there are just not found. All of it is read then. Where
// pages are missing as a whole, or the log has the page, SQLite sees to it.
func (d *database) whole(ctx context.Context, size int64) error {
	var page int64
	if err := d.write.QueryRowContext(ctx, "PRAGMA page_size").Scan(&page); err != nil {
		return err
	}
	if size%page == 0 {
		return nil
	}
	var said string
	if err := d.write.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&said); err != nil {
		return err
	}
	if said != "ok" {
		return fmt.Errorf("%w: %s", errTorn, said)
	}
	return nil
}

// connect returns a pool of at most so many connections to the file, each of which
// begins with the pragmas.
func connect(path string, most int, pragmas ...string) (*sql.DB, error) {
	q := url.Values{"_pragma": append([]string{"busy_timeout(10000)"}, pragmas...), "_txlock": {"immediate"}}
	u := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	db.SetMaxOpenConns(most)
	db.SetMaxIdleConns(most)
	return db, nil
}

// prepare makes the tables in an empty file, and sees that this version knows those
// of one that is not.
func (d *database) prepare(ctx context.Context) error {
	return d.update(ctx, func(tx *sql.Tx) error {
		var version int
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
			return err
		}
		switch version {
		case schemaVersion:
			_, err := tx.ExecContext(ctx, added)
			return err
		case 0:
			_, err := tx.ExecContext(ctx, schema+added)
			return err
		}
		return fmt.Errorf("it has format %d, and this version knows only %d: upgrade this primary, or move the file away, which another primary then replaces", version, schemaVersion)
	})
}

// update calls f with a transaction, which is on disk when it returns nil. Nothing
// is written when it does not.
func (d *database) update(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := d.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		if undo := tx.Rollback(); undo != nil && !errors.Is(undo, sql.ErrTxDone) {
			err = errors.Join(err, undo)
		}
		return err
	}
	return tx.Commit()
}

// rest gives back the cache of the connection that writes.
func (d *database) rest(ctx context.Context) error {
	_, err := d.write.ExecContext(ctx, "PRAGMA shrink_memory")
	return err
}

func (d *database) close() error {
	var err error
	for _, db := range []*sql.DB{d.read, d.write} { // the last one folds the log into the file
		if db != nil {
			err = errors.Join(err, db.Close())
		}
	}
	return err
}

// damaged tells whether an error says that the file is not what was written.
func damaged(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return errors.Is(err, errTorn)
	}
	switch e.Code() & 0xff { // the rest tells where
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return true
	}
	return false
}

// setAside renames the file and what belongs to it, so that a new one can be begun,
// and returns its new name.
func setAside(dir, why string) (name string, err error) {
	path := filepath.Join(dir, fileName)
	name = fmt.Sprintf("%s.%s.%s", path, time.Now().UTC().Format("20060102T150405.000Z"), why)
	for _, suffix := range []string{"-wal", "-shm", ""} { // the file last: without it the others mean nothing
		if err := os.Rename(path+suffix, name+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return name, fmt.Errorf("setting the history aside: %w", err)
		}
	}
	return name, nil
}

// nanos returns an instant as it is stored; 0 for none. One that nanoseconds of 64 bits
// can't tell, before 1678 or after 2262, is as far from now as they can.
func nanos(t time.Time) int64 {
	switch {
	case t.IsZero():
		return 0
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixNano()
}

func instant(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
