package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

// SQLite has no checksum for what is in its pages: a bit that the disk flips would be
// shown for true, and given to another primary. So each record has a seal behind it, in
// the form of a field that its message does not have: versions that know of no seals
// pass it over, and what they wrote has none and is taken as it is.
const sealField protowire.Number = 2047

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errAltered is what is not as it was written.
var errAltered = errors.New("its checksum is wrong")

// seal returns a record with its seal behind it.
func seal(record []byte) []byte {
	sum := crc32.Checksum(record, castagnoli)
	return protowire.AppendFixed32(protowire.AppendTag(record, sealField, protowire.Fixed32Type), sum)
}

// unseal reads a record. One of whose seal the tag was changed is taken as it is, and
// may be: nothing else of it was.
func unseal(record []byte) (*state.Run, error) {
	if err := checkSeal(record); err != nil {
		return nil, err
	}
	return raftstore.DecodeRun(record)
}

// checkSeal tells whether a record is as it was written.
func checkSeal(record []byte) error {
	tag := protowire.AppendTag(nil, sealField, protowire.Fixed32Type)
	if n := len(record) - len(tag) - 4; n >= 0 && string(record[n:n+len(tag)]) == string(tag) {
		if crc32.Checksum(record[:n], castagnoli) != binary.LittleEndian.Uint32(record[n+len(tag):]) {
			return errAltered
		}
	}
	return nil
}

// row is a run as it is in the file.
type row struct {
	serial   int64
	finished int64 // in nanoseconds; by the column
	record   []byte
}

// rowColumns are what a row is read from.
const rowColumns = "serial, finished, record"

// run reads a row. The error is an [*alteredError].
func (r row) run() (*state.Run, error) {
	run, err := unseal(r.record)
	if err != nil {
		return nil, &alteredError{r.serial, []time.Time{instant(r.finished)}, err}
	}
	if int64(run.Serial) != r.serial || nanos(run.Finished) != r.finished {
		return nil, &alteredError{r.serial, []time.Time{instant(r.finished), run.Finished}, errMisplaced}
	}
	return run, nil
}

// appendOutputs reads only what a row says of output. The error is an [*alteredError].
func (r row) appendOutputs(list []raftstore.Output) ([]raftstore.Output, error) {
	err := checkSeal(r.record)
	if err == nil {
		list, err = raftstore.AppendOutputs(list, r.record)
	}
	if err != nil {
		err = &alteredError{r.serial, []time.Time{instant(r.finished)}, err}
	}
	return list, err
}

// errMisplaced is of a record that stands where another one should.
var errMisplaced = errors.New("it is of another run than its row")

// alteredError tells of a run that the disk, or somebody, has changed. Only that one is
// of no use.
type alteredError struct {
	serial   int64
	finished []time.Time // when it may have ended: one of the two that say it may be wrong
	why      error
}

func (e *alteredError) Error() string {
	return fmt.Sprintf("the record of the run that ended at %s was changed on disk (%v); it is being replaced from memory or from other primaries", e.finished[0].Format(time.RFC3339Nano), e.why)
}

func (e *alteredError) Unwrap() error { return e.why }
