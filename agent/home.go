package agent

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/schedd/schedd/proto/wire"
)

// What is in a data directory.
const (
	lockFile    = "lock"
	keyFile     = "identity.key"
	startsFile  = "starts"
	sealFile    = "seal"
	journalFile = "journal"
	spoolDir    = "spool"
	scriptDir   = "scripts"
)

// ErrInUse is returned for a data directory that another agent has open.
var ErrInUse = errors.New("another schedagent uses it")

// home is a data directory, locked for this process, and what it says of the
// worker.
type home struct {
	dir    string
	lock   *flock.Flock
	key    ed25519.PrivateKey
	starts uint32 // of an agent in this directory, this one included
}

// How long a lock is tried for, and how often.
const (
	lockPatience = time.Second
	lockAgain    = 20 * time.Millisecond
)

// openHome locks the directory, makes what is missing, and counts the start.
func openHome(dir string, log *slog.Logger) (_ *home, err error) {
	// Those who run scripts as other users have to pass through.
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("make the data directory: %w; create it for this user, or name another with --data-dir", err)
	}
	h := &home{dir: dir, lock: flock.New(filepath.Join(dir, lockFile))}
	ours, err := tryLock(h.lock)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory %q: %w; it has to be writable for this user", dir, err)
	}
	if !ours {
		return nil, fmt.Errorf("data directory %q: %w; stop that one, or give this one its own --data-dir", dir, ErrInUse)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	if err := h.identify(log); err != nil {
		return nil, err
	}
	return h, nil
}

// identify finds out which worker this is, and which of its starts.
func (h *home) identify(log *slog.Logger) error {
	former, err := readSeal(h.path(sealFile))
	if err != nil {
		return err
	}
	var made bool
	if h.key, made, err = loadKey(h.path(keyFile), log); err != nil {
		return err
	}
	worker := wire.WorkerID(h.public())
	if err := former.check(worker, h.path(keyFile)); err != nil && !made {
		return err
	}
	if h.starts, err = h.countStart(former.starts); err != nil {
		return err
	}
	if err := writeFile(h.path(sealFile), []byte(seal{worker, h.starts}.text())); err != nil {
		return fmt.Errorf("seal the worker's key: %w", err)
	}
	return nil
}

// tryLock tries for a while: a former life that was killed amid a fork has the
// lock until its child has started.
func tryLock(l *flock.Flock) (ours bool, err error) {
	patience, again := time.NewTimer(lockPatience), time.NewTicker(lockAgain)
	defer patience.Stop()
	defer again.Stop()
	for {
		if ours, err = l.TryLock(); ours || err != nil {
			return ours, err
		}
		select {
		case <-patience.C:
			return false, nil
		case <-again.C:
		}
	}
}

func (h *home) path(name string) string { return filepath.Join(h.dir, name) }

func (h *home) close() error {
	if err := h.lock.Unlock(); err != nil {
		return fmt.Errorf("unlock the data directory %q: %w", h.dir, err)
	}
	return nil
}

// pemType is what PEM calls a PKCS #8 key.
const pemType = "PRIVATE KEY"

// loadKey reads the worker's key, or makes it at the first start. A key that
// can't be read is never replaced: with another key this is another worker.
func loadKey(path string, log *slog.Logger) (key ed25519.PrivateKey, made bool, err error) {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		key, err = makeKey(path)
		return key, true, err
	case err != nil:
		return nil, false, fmt.Errorf("read the worker's key: %w", err)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		log.Warn("others may read the worker's key; take their rights away with chmod 600", "path", path, "mode", info.Mode().Perm().String())
	}
	if block, _ := pem.Decode(text); block != nil && block.Type == pemType {
		if any, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if key, ok := any.(ed25519.PrivateKey); ok {
				return key, false, nil
			}
		}
	}
	return nil, false, fmt.Errorf("%s is not an Ed25519 key in PEM: restore it, or remove it to join as a new worker", path)
}

func makeKey(path string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the worker's key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the worker's key: %w", err)
	}
	if err := writeFile(path, pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})); err != nil {
		return nil, fmt.Errorf("write the worker's key: %w", err)
	}
	return key, nil
}

// countStart adds one to the count of starts, which is sealed or greater, and returns it.
// It orders sessions of this worker over restarts, which a clock could not.
func (h *home) countStart(sealed uint32) (uint32, error) {
	path := h.path(startsFile)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("read the count of starts: %w", err)
	}
	if _, jerr := os.Stat(h.path(journalFile)); err != nil && jerr == nil && sealed == 0 {
		return 0, fmt.Errorf("%s, the count of starts, is gone: write a number into it that is greater than all before", path)
	}
	var before uint64
	if err == nil {
		before, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
		if err != nil {
			return 0, fmt.Errorf("%s is not a count of starts: write a number into it that is greater than all before", path)
		}
	}
	if max(uint32(before), sealed) == 1<<32-1 {
		return 0, fmt.Errorf("%s: a worker can't start more often: remove %s to join as a new one", path, h.dir)
	}
	now := max(uint32(before), sealed) + 1
	if err := writeFile(path, []byte(strconv.FormatUint(uint64(now), 10)+"\n")); err != nil {
		return 0, fmt.Errorf("write the count of starts: %w", err)
	}
	return now, nil
}

// writeFile replaces a file as a whole, durably, and keeps it private: after a
// crash there is the old one or the new one.
func writeFile(path string, data []byte) (err error) {
	temp := path + ".new" // the directory is ours alone, so is the name
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
