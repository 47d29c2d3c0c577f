package agent

import (
	"bytes"
	"crypto/ed25519"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/schedd/schedd/proto/wire"
)

// Whatever is in the files that say which worker this is: it starts as the worker that it
// was, with a count of starts greater than all that can be told of, and says so in the
// same files; or it does not start, says why, and leaves them as they are.
func FuzzHome(f *testing.F) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
	own := wire.WorkerID(key.Public().(ed25519.PublicKey))
	dir := f.TempDir()
	if _, err := makeKey(filepath.Join(dir, keyFile)); err != nil {
		f.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil {
		f.Fatal(err)
	}
	made, _, err := loadKey(filepath.Join(dir, keyFile), slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	is := wire.WorkerID(made.Public().(ed25519.PublicKey))
	f.Add(pem, []byte(seal{is, 4}.text()), []byte("4\n"))
	f.Add(pem, []byte(seal{is, 7}.text()), []byte("4\n")) // the count has gone back
	f.Add(pem, []byte(seal{own, 4}.text()), []byte("4\n"))
	f.Add(pem, []byte(seal{is, 1<<32 - 1}.text()), []byte("4\n"))
	f.Add(pem, []byte(strings.ToUpper(seal{is, 4}.text())), []byte(" 4"))
	f.Add(pem[:len(pem)/2], []byte("worker w starts 1 crc32c 0\n"), []byte("4294967296"))
	f.Add([]byte("no key"), []byte{}, []byte("-1"))
	f.Fuzz(func(t *testing.T, key, sealed, starts []byte) {
		files := map[string][]byte{keyFile: key, sealFile: sealed, startsFile: starts}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		former, unsealed := readSeal(filepath.Join(dir, sealFile))
		h, err := openHome(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			for name, was := range files {
				if now, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(now, was) {
					t.Fatalf("it has not started, and %s is %q now: %v", name, now, err)
				}
			}
			return
		}
		if err := h.close(); err != nil {
			t.Fatal(err)
		}
		worker := wire.WorkerID(h.public())
		before, _ := strconv.ParseUint(strings.TrimSpace(string(starts)), 10, 32)
		if unsealed != nil || former.worker != "" && former.worker != worker || h.starts <= former.starts || uint64(h.starts) <= before {
			t.Fatalf("as %s it starts for the time %d, after %q and %q", worker, h.starts, sealed, starts)
		}
		if now, err := readSeal(filepath.Join(dir, sealFile)); err != nil || now != (seal{worker, h.starts}) {
			t.Fatalf("its seal says %+v of %s after start %d: %v", now, worker, h.starts, err)
		}
		flipped := []byte(seal{worker, h.starts}.text())
		flipped[len(starts)%len(flipped)] ^= 1
		if err := os.WriteFile(filepath.Join(dir, sealFile), flipped, 0o600); err != nil {
			t.Fatal(err)
		}
		if now, err := readSeal(filepath.Join(dir, sealFile)); err == nil {
			t.Fatalf("%q is a seal: %+v", flipped, now)
		}
	})
}
