package raftstore

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"
	"time"

	logv1 "github.com/schedd/schedd/proto/schedd/log/v1"
	"github.com/schedd/schedd/raftstore/state"
)

const (
	// snapshotFormat is the one that this version writes, and the only one that
	// it reads.
	snapshotFormat = 1

	// maxRecord is the largest record that is believed, in bytes. What is large
	// in a record is the definition of a job.
	maxRecord = 16 << 20

	// spansPerRecord bounds the records of a ledger that has many spans.
	spansPerRecord = 1000
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Hash returns a digest of all that the state holds, but for how far it has come:
// its index and its time. It is the same on two primaries exactly when they agree,
// if both are of the same version, and on one that restored a saved snapshot as it
// was where that was saved.
func Hash(s *state.State) ([sha256.Size]byte, error) {
	n := s.Snapshot()
	n.Index, n.Now = 0, time.Time{}
	h := sha256.New()
	if _, err := writeSnapshot(h, n); err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("hashing the state at index %d: %w", s.Index(), err)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// writeSnapshot writes n, whose lists it sorts, and returns how many bytes that
// took.
func writeSnapshot(w io.Writer, n *state.Snapshot) (int64, error) {
	n.Sort()
	sw := newSnapshotWriter(w)
	sw.put(&logv1.Record{Record: &logv1.Record_Header{Header: &logv1.Header{
		Format: snapshotFormat, Index: n.Index, Now: sw.time(n.Now), Serial: n.Serial, ClusterId: n.ClusterID,
	}}})
	current := make(map[uint64]*state.Definition, len(n.Jobs))
	for _, j := range n.Jobs {
		current[j.UID] = j.Definition
		sw.put(&logv1.Record{Record: &logv1.Record_Job{Job: sw.job(j)}})
	}
	for _, k := range n.Tracks {
		sw.put(&logv1.Record{Record: &logv1.Record_Track{Track: sw.track(k, true)}})
		sw.spans(k.Track.Closed)
	}
	for _, k := range n.Past {
		sw.put(&logv1.Record{Record: &logv1.Record_Past{Past: sw.track(k, false)}})
		sw.spans(k.Track.Closed)
	}
	for _, r := range n.Runs {
		if r.Definition != nil && r.Definition == current[r.UID] {
			c := *r
			c.Definition = nil
			r = &c
		}
		sw.put(&logv1.Record{Record: &logv1.Record_Run{Run: sw.run(r)}})
	}
	for _, w := range n.Workers {
		sw.put(&logv1.Record{Record: &logv1.Record_Worker{Worker: sw.worker(w)}})
	}
	for _, a := range n.Activity {
		sw.put(&logv1.Record{Record: &logv1.Record_Activity{Activity: &logv1.Activity{Uid: a.UID, Seq: a.Seq}}})
	}
	for _, id := range n.Standbys {
		sw.put(&logv1.Record{Record: &logv1.Record_Standby{Standby: &logv1.Standby{Id: id}}})
	}
	for _, address := range n.Directs {
		sw.put(&logv1.Record{Record: &logv1.Record_Direct{Direct: &logv1.Direct{Address: address}}})
	}
	for _, j := range n.Jumps {
		sw.put(&logv1.Record{Record: &logv1.Record_Jump{Jump: &logv1.Jump{Was: sw.time(j.Was), Is: sw.time(j.Is)}}})
	}
	err := sw.close()
	return sw.size, err
}

// snapshotWriter writes records. After an error it does nothing.
type snapshotWriter struct {
	encoder
	w       *bufio.Writer
	crc     hash.Hash32
	records uint64
	size    int64
	buf     []byte
}

func newSnapshotWriter(w io.Writer) *snapshotWriter {
	return &snapshotWriter{encoder: remembering(), w: bufio.NewWriterSize(w, 1<<16), crc: crc32.New(castagnoli)}
}

// close writes the end, and returns the first error of all.
func (w *snapshotWriter) close() error {
	w.put(&logv1.Record{Record: &logv1.Record_Footer{Footer: &logv1.Footer{Records: w.records, Crc: w.crc.Sum32()}}})
	if w.err == nil {
		w.err = w.w.Flush()
	}
	return w.err
}

func (w *snapshotWriter) put(r *logv1.Record) {
	if w.err != nil {
		return
	}
	// The length goes before it, so leave room for that.
	b := append(w.buf[:0], make([]byte, binary.MaxVarintLen32)...)
	if b, w.err = marshal.MarshalAppend(b, r); w.err != nil {
		return
	}
	w.buf = b
	n := len(b) - binary.MaxVarintLen32
	if n > maxRecord {
		w.failf("a record of %d bytes, of %d allowed: %T", n, maxRecord, r.GetRecord())
		return
	}
	var length [binary.MaxVarintLen32]byte
	k := binary.PutUvarint(length[:], uint64(n))
	b = b[binary.MaxVarintLen32-k:]
	copy(b, length[:k])
	_, _ = w.crc.Write(b) // never fails
	w.records++
	w.size += int64(len(b))
	_, w.err = w.w.Write(b)
}

func (w *snapshotWriter) spans(spans []state.Span) {
	for chunk := range slices.Chunk(spans, spansPerRecord) {
		w.put(&logv1.Record{Record: &logv1.Record_Spans{Spans: &logv1.Spans{Spans: each(chunk, w.span)}}})
	}
}

// errDamaged is a snapshot that is not as it was written.
var errDamaged = errors.New("snapshot is damaged")

// readSnapshot reads what writeSnapshot wrote, and checks that it is whole and
// that a state can be made of it.
func readSnapshot(r io.Reader) (*state.Snapshot, error) {
	sr := &snapshotReader{r: bufio.NewReaderSize(r, 1<<16), n: &state.Snapshot{}, shared: newShared()}
	for !sr.whole {
		crc, before := sr.crc, sr.records
		p, err := sr.next()
		if err != nil {
			return nil, err
		}
		if err := sr.take(p, before, crc); err != nil {
			return nil, err
		}
	}
	if _, err := sr.r.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: something comes after its end", errDamaged)
	}
	return sr.result()
}

// result returns what was read, when it is whole and a state can be made of it.
func (r *snapshotReader) result() (*state.Snapshot, error) {
	if r.fault != nil {
		return nil, r.fault
	}
	if err := check(r.n); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return r.n, nil
}

// snapshotReader puts a snapshot together.
type snapshotReader struct {
	r       *bufio.Reader
	crc     uint32 // of all records read
	records uint64
	buf     []byte
	sure    bool // this version knows all of the last one
	n       *state.Snapshot
	shared  shared
	whole   bool
	last    *state.Track // whose spans come next
	spans   uint64       // how many of them are still to come
	fault   error        // the first content that makes no sense, told if the checksum holds
}

// next reads one record.
func (r *snapshotReader) next() (*logv1.Record, error) {
	n, err := binary.ReadUvarint(r.r)
	if err != nil {
		return nil, fmt.Errorf("%w: it ends in record %d: %w", errDamaged, r.records, noEOF(err))
	}
	if n > maxRecord {
		return nil, fmt.Errorf("%w: record %d says that it has %d bytes", errDamaged, r.records, n)
	}
	r.buf = slices.Grow(r.buf[:0], int(n))[:n]
	if _, err := io.ReadFull(r.r, r.buf); err != nil {
		return nil, fmt.Errorf("%w: it ends in record %d: %w", errDamaged, r.records, noEOF(err))
	}
	length := binary.AppendUvarint(nil, n)
	r.crc = crc32.Update(crc32.Update(r.crc, castagnoli, length), castagnoli, r.buf)
	r.records++
	p := &logv1.Record{}
	if r.sure, err = unmarshalKnown(r.buf, p); err != nil {
		return nil, fmt.Errorf("%w: record %d: %w", errDamaged, r.records-1, err)
	}
	return p, nil
}

// noEOF tells an end where none may be from the end that Restore's caller may
// expect.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// take adds a record, before which there were so many others with that checksum.
func (r *snapshotReader) take(p *logv1.Record, before uint64, crc uint32) error {
	header := p.GetHeader()
	switch {
	case (before == 0) != (header != nil):
		return fmt.Errorf("%w: record %d is a %T", errDamaged, before, p.GetRecord())
	case header != nil && header.GetFormat() != snapshotFormat:
		return fmt.Errorf("the snapshot has a format (%d) %w", header.GetFormat(), errNewer)
	}
	if f := p.GetFooter(); f != nil {
		r.whole = true
		if f.GetRecords() != before || f.GetCrc() != crc {
			return fmt.Errorf("%w: %d records with the checksum %08x, where its end says %d with %08x",
				errDamaged, before, crc, f.GetRecords(), f.GetCrc())
		}
	}
	if r.fault == nil {
		r.fault = r.content(p, before)
	}
	return nil
}

// content adds what a record holds.
func (r *snapshotReader) content(p *logv1.Record, number uint64) error {
	d := decoder{shared: r.shared}
	if !r.sure {
		d.known(p)
	}
	r.add(&d, p)
	switch {
	case errors.Is(d.err, errNewer):
		return fmt.Errorf("the snapshot holds %w", d.err)
	case d.err != nil:
		return fmt.Errorf("%w: record %d holds %w", errDamaged, number, d.err)
	}
	return nil
}

func (r *snapshotReader) add(d *decoder, p *logv1.Record) {
	n := r.n
	if r.spans > 0 && p.GetSpans() == nil {
		d.failf("0 spans where %d must be", r.spans)
		return
	}
	switch p := p.GetRecord().(type) {
	case *logv1.Record_Header:
		h := p.Header
		n.Index, n.Now, n.Serial, n.ClusterID = h.GetIndex(), d.time(h.GetNow()), h.GetSerial(), h.GetClusterId()
	case *logv1.Record_Job:
		n.Jobs = append(n.Jobs, d.job(p.Job))
	case *logv1.Record_Track:
		n.Tracks = append(n.Tracks, r.track(d, p.Track))
	case *logv1.Record_Past:
		n.Past = append(n.Past, r.track(d, p.Past))
	case *logv1.Record_Spans:
		if n := uint64(len(p.Spans.GetSpans())); n == 0 || n > r.spans {
			d.failf("%d spans where %d must be", n, r.spans)
			return
		}
		r.spans -= uint64(len(p.Spans.GetSpans()))
		r.last.Closed = append(r.last.Closed, each(p.Spans.GetSpans(), d.span)...)
	case *logv1.Record_Run:
		n.Runs = append(n.Runs, d.run(p.Run))
	case *logv1.Record_Worker:
		n.Workers = append(n.Workers, d.worker(p.Worker))
	case *logv1.Record_Activity:
		n.Activity = append(n.Activity, state.Activity{UID: p.Activity.GetUid(), Seq: p.Activity.GetSeq()})
	case *logv1.Record_Standby:
		n.Standbys = append(n.Standbys, p.Standby.GetId())
	case *logv1.Record_Direct:
		n.Directs = append(n.Directs, p.Direct.GetAddress())
	case *logv1.Record_Jump:
		n.Jumps = append(n.Jumps, state.Jump{Was: d.time(p.Jump.GetWas()), Is: d.time(p.Jump.GetIs())})
	case *logv1.Record_Footer:
	default:
		d.failf("a record %w", errNewer)
	}
}

func (r *snapshotReader) track(d *decoder, p *logv1.Track) state.KeyedTrack {
	k := d.track(p)
	r.last, r.spans = k.Track, p.GetClosed()
	return k
}
