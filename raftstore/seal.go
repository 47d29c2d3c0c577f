package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// What Raft keeps lies in bbolt, which has no checksum for what is in it: a bit that
// the disk flips would be applied on this primary and on no other, and nobody would
// ever know that they disagree. So each entry, and each of Raft's own values, is
// written with a seal behind it:
//
//	magic[4] crc32c u32, big-endian
//
// The checksum of an entry covers its index and its term too, so one that is found in
// the place of another is no good. What an older version wrote has no seal, and is
// taken as it is.
const (
	sealMagic = "\xf5crc"
	sealLen   = len(sealMagic) + 4
)

// errAltered is what is not as it was written.
var errAltered = errors.New("its checksum is wrong")

// seal returns b with a seal for the checksum behind it. b is not changed.
func seal(b []byte, sum uint32) []byte {
	out := make([]byte, 0, len(b)+sealLen)
	out = append(append(out, b...), sealMagic...)
	return binary.BigEndian.AppendUint32(out, sum)
}

// unseal takes a seal off; sealed tells whether there was one. One of which a byte was
// changed is told from none at all.
func unseal(b []byte) (rest []byte, sum uint32, sealed bool, err error) {
	n := len(b) - sealLen
	if n < 0 {
		return b, 0, false, nil
	}
	alike := 0
	for i := range len(sealMagic) {
		if b[n+i] == sealMagic[i] {
			alike++
		}
	}
	switch alike {
	case len(sealMagic):
		return b[:n:n], binary.BigEndian.Uint32(b[n+len(sealMagic):]), true, nil
	case len(sealMagic) - 1:
		return nil, 0, false, errAltered
	}
	return b, 0, false, nil
}

// sumOf is the checksum of an entry. When it was appended, which is for metrics, is no
// part of it.
func sumOf(l *raft.Log) uint32 {
	head := binary.BigEndian.AppendUint64(nil, l.Index)
	head = binary.BigEndian.AppendUint64(head, l.Term)
	head = append(head, byte(l.Type))
	head = binary.BigEndian.AppendUint64(head, uint64(len(l.Data)))
	sum := crc32.Checksum(head, castagnoli)
	sum = crc32.Update(sum, castagnoli, l.Data)
	return crc32.Update(sum, castagnoli, l.Extensions)
}

// sealedLogs is a log whose entries carry a seal on the disk, in their Extensions,
// which Raft keeps for whoever stands between it and the disk.
type sealedLogs struct{ raft.LogStore }

// StoreLog implements [raft.LogStore].
func (s sealedLogs) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements [raft.LogStore].
func (s sealedLogs) StoreLogs(logs []*raft.Log) error { return s.LogStore.StoreLogs(sealLogs(logs)) }

// sealLogs returns the entries as they are written. Those of Raft are not changed: it
// sends them to the others at the same time.
func sealLogs(logs []*raft.Log) []*raft.Log {
	sealed := make([]*raft.Log, len(logs))
	for i, l := range logs {
		c := *l
		c.Extensions = seal(l.Extensions, sumOf(l))
		sealed[i] = &c
	}
	return sealed
}

// GetLog implements [raft.LogStore]. The error is [raft.ErrLogNotFound], [errAltered],
// or that of whoever can't make sense of what is there.
func (s sealedLogs) GetLog(index uint64, l *raft.Log) error {
	var got raft.Log
	if err := s.LogStore.GetLog(index, &got); err != nil {
		return err
	}
	rest, sum, sealed, err := unseal(got.Extensions)
	if err != nil || got.Index != index || !sealed && len(rest) > 0 {
		return errAltered // nobody but us writes any
	}
	if got.Extensions = rest; len(rest) == 0 {
		got.Extensions = nil
	}
	if sealed && sum != sumOf(&got) {
		return errAltered
	}
	*l = got
	return nil
}

// sealedStable is where Raft keeps its term and its vote. A term that is too low, or a
// vote that is forgotten, would be given twice. The seal comes behind the value, where
// versions that know of none do not look for a number.
type sealedStable struct{ raft.StableStore }

func sumOfValue(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// Set implements [raft.StableStore].
func (s sealedStable) Set(key, value []byte) error {
	return s.StableStore.Set(key, seal(value, sumOfValue(key, value)))
}

// Get implements [raft.StableStore].
func (s sealedStable) Get(key []byte) ([]byte, error) {
	b, err := s.StableStore.Get(key)
	if err != nil {
		return nil, err
	}
	value, sum, sealed, err := unseal(b)
	if err != nil || sealed && sum != sumOfValue(key, value) {
		return nil, fmt.Errorf("the value %s: %w", key, errAltered)
	}
	return value, nil
}

// SetUint64 implements [raft.StableStore].
func (s sealedStable) SetUint64(key []byte, n uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, n))
}

// GetUint64 implements [raft.StableStore].
func (s sealedStable) GetUint64(key []byte) (uint64, error) {
	b, err := s.Get(key)
	switch {
	case err != nil:
		return 0, err
	case len(b) != 8:
		return 0, fmt.Errorf("the value %s has %d bytes: %w", key, len(b), errAltered)
	}
	return binary.BigEndian.Uint64(b), nil
}
