package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
)

// The sidecar is made when there is more to say of a log than its limit, which is in
// the name of the file: when a part of it was reported, or is left out. It has two
// slots, written in turn, so that a crash in the middle of one leaves the other.
// Integers are little-endian:
//
//	magic[8] seq u64 limit i64 mark i64 hole i64 total i64 sum u32
//	sealed u8 cuts u8 cut[8] i64 acked i64, zeros, crc u32 (of all before)
//
// It has its full size from the start, so that a full disk doesn't stop a write.
const (
	metaMagic = "scheddl1"
	slotLen   = 512
	ackedAt   = 54 + 8*maxCuts
)

var errDamaged = errors.New("no slot of the sidecar is whole")

func (l *Log) metaPath() string { return filepath.Join(l.spool.dir, l.key.metaName()) }

// save puts m on the disk, and then in l. Only with durable set, or the first time, does
// it outlive a crash of the host.
func (l *Log) save(m meta, durable bool) error {
	if m.equal(l.meta) {
		return nil
	}
	if !l.kept {
		if err := l.createMeta(m); err != nil {
			return fmt.Errorf("write sidecar: %w", err)
		}
		l.meta, l.kept = m, true
		return nil
	}
	m.seq = l.meta.seq + 1
	f, err := os.OpenFile(l.metaPath(), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(encodeMeta(m), int64(m.seq%2)*slotLen)
	if err == nil && durable {
		err = l.spool.disk.Fsync(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("save sidecar: %w", err)
	}
	l.meta = m
	return nil
}

func (m meta) equal(o meta) bool { return string(encodeMeta(m)) == string(encodeMeta(o)) }

// createMeta makes the sidecar. It is whole as soon as it has its name, which says that
// there is a log of that name, too.
func (l *Log) createMeta(m meta) error {
	if err := l.nameOwn(); err != nil {
		return err
	}
	temp := l.metaPath() + tempSuffix
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	slot := encodeMeta(m)
	_, err = f.Write(append(slot, slot...))
	if err == nil {
		err = l.spool.disk.Fsync(f)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, l.metaPath())
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return l.spool.syncDir()
}

func loadMeta(path string) (meta, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return meta{}, err
	}
	var best meta
	found := false
	for at := 0; at+slotLen <= len(data) && at < 2*slotLen; at += slotLen {
		if m, ok := decodeMeta(data[at : at+slotLen]); ok && (!found || m.seq > best.seq) {
			best, found = m, true
		}
	}
	if !found {
		return meta{}, errDamaged
	}
	return best, nil
}

func encodeMeta(m meta) []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, slotLen), metaMagic...)
	b = le.AppendUint64(b, m.seq)
	for _, n := range []int64{m.limit, m.mark, m.hole, m.total} {
		b = le.AppendUint64(b, uint64(n))
	}
	b = le.AppendUint32(b, m.sum)
	sealed := byte(0)
	if m.sealed {
		sealed = 1
	}
	b = append(b, sealed, byte(len(m.cuts)))
	for _, n := range m.cuts {
		b = le.AppendUint64(b, uint64(n))
	}
	b = b[:slotLen]
	le.PutUint64(b[ackedAt:], uint64(m.acked))
	le.PutUint32(b[slotLen-4:], crc32.Checksum(b[:slotLen-4], castagnoli))
	return b
}

// decodeMeta returns what a slot holds, if it is whole and makes sense.
func decodeMeta(b []byte) (meta, bool) {
	le := binary.LittleEndian
	if len(b) != slotLen || string(b[:8]) != metaMagic || le.Uint32(b[slotLen-4:]) != crc32.Checksum(b[:slotLen-4], castagnoli) {
		return meta{}, false
	}
	i64 := func(at int) int64 { return int64(le.Uint64(b[at:])) }
	m := meta{seq: le.Uint64(b[8:]), limit: i64(16), mark: i64(24), hole: i64(32), total: i64(40), sum: le.Uint32(b[48:]), sealed: b[52] == 1, acked: i64(ackedAt)}
	if b[52] > 1 || b[53] > maxCuts || m.limit < MinLimit || m.limit > 1<<60 || m.hole < 0 || m.total < 0 || m.acked < 0 {
		return meta{}, false
	}
	used := int64(0)
	for i := range int(b[53]) {
		n := i64(54 + 8*i)
		if n <= 0 || n > m.limit/2-used {
			return meta{}, false
		}
		used += n
		m.cuts = append(m.cuts, n)
	}
	if m.mark < 0 || m.mark > m.room() {
		return meta{}, false
	}
	return m, true
}
