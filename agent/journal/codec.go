package journal

import (
	"encoding/binary"
	"hash/crc32"
	"time"
)

// The file, all integers little-endian:
//
//	header  magic[8] version u32 crc u32 (of the twelve bytes before)
//	frame   length u32   of the body
//	        back   u32   from the frame to the end of what was synced when it was written
//	        crc    u32   of the two above and the frame's place in the file
//	        crc    u32   of the body
//	body    kind u8, attempt u32, fence u64, high u64, seconds i64, nanoseconds u32,
//	        length of run u8, run, payload (the rest)
//
// high is the highest fence that had been accepted when the record was written,
// itself included: behind damage it bounds what can have been lost.
const (
	magic     = "scheddjn"
	version   = 1
	headerLen = 16
	frameLen  = 16
	bodyLen   = 1 + 4 + 8 + 8 + 8 + 4 + 1
	maxBody   = bodyLen + MaxRun + MaxPayload
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// found is a record and where it was found.
type found struct {
	rec  Record
	high uint64
	end  int64 // of its frame
	base int64 // all before was synced when it was written
}

// span is a range of bytes of the file in which there is no whole record.
type span struct{ from, to int64 }

func encodeHeader() []byte {
	b := binary.LittleEndian.AppendUint32([]byte(magic), version)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeHeader returns the version, and whether the header is whole.
func decodeHeader(data []byte) (uint32, bool) {
	if len(data) < headerLen || string(data[:8]) != magic ||
		binary.LittleEndian.Uint32(data[12:]) != crc32.Checksum(data[:12], castagnoli) {
		return 0, false
	}
	return binary.LittleEndian.Uint32(data[8:]), true
}

func frameSize(r *Record) int { return frameLen + bodyLen + len(r.Key.Run) + len(r.Payload) }

// encodeBatch returns the frames of recs, to be written together at off in a
// file that is synced up to base and has accepted fences up to high.
func encodeBatch(recs []*Record, off, base int64, high uint64) []byte {
	size := 0
	for _, r := range recs {
		size += frameSize(r)
	}
	b := make([]byte, 0, size)
	le := binary.LittleEndian
	for _, r := range recs {
		at := len(b)
		high = max(high, r.Fence)
		b = append(b, make([]byte, frameLen)...)
		b = append(b, byte(r.Kind))
		b = le.AppendUint32(b, r.Key.Attempt)
		b = le.AppendUint64(b, r.Fence)
		b = le.AppendUint64(b, high)
		b = le.AppendUint64(b, uint64(r.Time.Unix()))
		b = le.AppendUint32(b, uint32(r.Time.Nanosecond()))
		b = append(b, byte(len(r.Key.Run)))
		b = append(b, r.Key.Run...)
		b = append(b, r.Payload...)
		body := b[at+frameLen:]
		le.PutUint32(b[at:], uint32(len(body)))
		le.PutUint32(b[at+4:], uint32(off+int64(at)-base))
		le.PutUint32(b[at+8:], placeSum(b[at:at+8], off+int64(at)))
		le.PutUint32(b[at+12:], crc32.Checksum(body, castagnoli))
	}
	return b
}

func placeSum(head []byte, place int64) uint32 {
	var p [8]byte
	binary.LittleEndian.PutUint64(p[:], uint64(place))
	return crc32.Update(crc32.Checksum(p[:], castagnoli), castagnoli, head)
}

// scan returns the records of a file and the spans without any, both in the
// order of their places.
func scan(data []byte) (recs []found, gaps []span) {
	end := int64(len(data))
	if end <= headerLen {
		return nil, nil
	}
	for pos := int64(headerLen); pos < end; {
		next := pos
		f, ok := decodeFrame(data, next)
		for !ok && next < end {
			next++
			f, ok = decodeFrame(data, next)
		}
		if next > pos {
			gaps = append(gaps, span{pos, next})
		}
		if !ok {
			break
		}
		recs = append(recs, f)
		pos = f.end
	}
	return recs, gaps
}

// decodeFrame returns the record whose frame is at pos, if a whole one is there.
func decodeFrame(data []byte, pos int64) (found, bool) {
	if pos+frameLen > int64(len(data)) {
		return found{}, false
	}
	head := data[pos : pos+frameLen]
	le := binary.LittleEndian
	size, back := int64(le.Uint32(head)), int64(le.Uint32(head[4:]))
	body := pos + frameLen
	if size < bodyLen || size > maxBody || body+size > int64(len(data)) || back > pos-headerLen ||
		le.Uint32(head[8:]) != placeSum(head[:8], pos) ||
		le.Uint32(head[12:]) != crc32.Checksum(data[body:body+size], castagnoli) {
		return found{}, false
	}
	f, ok := decodeBody(data[body : body+size])
	f.end, f.base = body+size, pos-back
	return f, ok
}

func decodeBody(b []byte) (found, bool) {
	le := binary.LittleEndian
	r := Record{Kind: Kind(b[0]), Key: Key{Attempt: le.Uint32(b[1:])}, Fence: le.Uint64(b[5:])}
	high, sec, nsec, n := le.Uint64(b[13:]), int64(le.Uint64(b[21:])), le.Uint32(b[29:]), int(b[33])
	if n > len(b)-bodyLen || nsec >= 1e9 {
		return found{}, false
	}
	r.Time = time.Unix(sec, int64(nsec)).UTC()
	r.Key.Run = string(b[bodyLen : bodyLen+n])
	r.Payload = append([]byte(nil), b[bodyLen+n:]...)
	if r.Kind != floor && r.valid() != nil {
		return found{}, false
	}
	return found{rec: r, high: high}, true
}
