package agent

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
)

// seal is what a data directory says of its worker a second time, with a checksum, since
// neither the key nor the count of starts has one: a bit that a disk has changed would
// make another worker of this one, or have its sessions lose against those of before. The
// zero seal is that of a directory in which only versions that wrote none have started.
type seal struct {
	worker string
	starts uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (s seal) text() string {
	body := fmt.Sprintf("worker %s starts %d", s.worker, s.starts)
	return fmt.Sprintf("%s crc32c %08x\n", body, crc32.Checksum([]byte(body), castagnoli))
}

func readSeal(path string) (s seal, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return seal{}, nil
	}
	if err != nil {
		return seal{}, fmt.Errorf("read what seals the worker's key: %w", err)
	}
	var sum uint32
	if _, err := fmt.Sscanf(string(text), "worker %s starts %d crc32c %x", &s.worker, &s.starts, &sum); err != nil || s.text() != string(text) {
		return seal{}, fmt.Errorf("%s is damaged: see that %s is this worker's, and that the number in %s is greater than all before; then remove it", path, keyFile, startsFile)
	}
	return s, nil
}

// check tells why a key that was read is not that of the worker that has started here
// before, or nil.
func (s seal) check(worker, key string) error {
	if s.worker == "" || s.worker == worker {
		return nil
	}
	return fmt.Errorf("%s is that of worker %s, and %s has started here before: restore its key; or, if this is to be another worker, remove %s",
		key, worker, s.worker, sealFile)
}
