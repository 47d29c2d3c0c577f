package raftstore

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	logv1 "github.com/schedd/schedd/proto/schedd/log/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// Output is what the record of a run says of the output of one of its attempts.
type Output struct {
	Run     state.RunID
	Attempt int // its number
	Fence   uint64
	Bytes   int64 // -1 while its worker has not told
}

// OutputOf returns what an attempt of a run says of its output.
func OutputOf(run state.RunID, a *state.Attempt) Output {
	o := Output{Run: run, Attempt: a.Number, Fence: a.Fence, Bytes: -1}
	if a.Reported() {
		o.Bytes = a.LogBytes
	}
	return o
}

// The fields of a record that tell of output.
const (
	runID       = 1
	runAttempts = 12

	attemptNumber   = 1
	attemptFence    = 2
	attemptOutcome  = 8
	attemptLate     = 9
	attemptLogBytes = 13
)

// errTorn is of a record that is none.
var errTorn = errors.New("it is no record of a run")

// AppendOutputs reads what [EncodeRun] wrote, and appends what it says of the output of each
// attempt. It reads nothing else, and makes nothing: whoever looks at a million runs for
// their output would leave more than a gigabyte of garbage behind.
func AppendOutputs(list []Output, record []byte) ([]Output, error) {
	first := len(list)
	var id []byte
	var d decoder
	err := eachField(record, func(field int32, _ uint64, b []byte) {
		switch field {
		case runID:
			id = b
		case runAttempts:
			a := d.outputOf(b)
			list = append(list, OutputOf(state.RunID{}, &a))
		}
	})
	run := d.id(id)
	if err = errors.Join(err, d.err); err != nil {
		return list[:first], fmt.Errorf("decoding the output of a run: %w", err)
	}
	for i := range list[first:] {
		list[first+i].Run = run
	}
	return list, nil
}

// outputOf reads the record of an attempt, and of that what tells of its output.
func (d *decoder) outputOf(record []byte) (a state.Attempt) {
	err := eachField(record, func(field int32, v uint64, _ []byte) {
		switch field {
		case attemptNumber:
			a.Number = d.int(int64(v))
		case attemptFence:
			a.Fence = v
		case attemptOutcome:
			a.Outcome = d.outcome(logv1.Outcome(v))
		case attemptLate:
			a.Late = d.outcome(logv1.Outcome(v))
		case attemptLogBytes:
			a.LogBytes = int64(v)
		}
	})
	if err != nil {
		d.failf("%v", err)
	}
	return a
}

// eachField calls f with the number of each field of a message, and what it is: v if it is
// a number, b if it is bytes.
func eachField(message []byte, f func(field int32, v uint64, b []byte)) error {
	for len(message) > 0 {
		n, typ, size := protowire.ConsumeTag(message)
		if size < 0 {
			return errTorn
		}
		message = message[size:]
		var v uint64
		var b []byte
		switch typ {
		case protowire.VarintType:
			v, size = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			b, size = protowire.ConsumeBytes(message)
		default:
			size = protowire.ConsumeFieldValue(n, typ, message)
		}
		if size < 0 {
			return errTorn
		}
		f(int32(n), v, b)
		message = message[size:]
	}
	return nil
}
