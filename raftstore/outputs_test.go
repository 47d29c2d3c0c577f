package raftstore

import (
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/schedd/schedd/raftstore/state"
)

// What is read of the output alone is what the run says, also where there is a field behind
// it that this version does not know. Of a record that is none nothing is told.
func TestOutputsAreThoseOfTheRun(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := fill(t, reflect.TypeFor[state.Run](), rapid.Bool().Draw(t, "full")).(state.Run)
		record, err := EncodeRun(&r)
		if err != nil {
			t.Fatal(err)
		}
		record = protowire.AppendFixed32(protowire.AppendTag(record, 2047, protowire.Fixed32Type), 1)
		before := []Output{{Attempt: 7}}
		want := slices.Clone(before)
		for i := range r.Attempts {
			want = append(want, OutputOf(r.ID, &r.Attempts[i]))
		}
		if got, err := AppendOutputs(slices.Clone(before), record); err != nil || !slices.Equal(got, want) {
			t.Fatalf("%+v, %v, want %+v", got, err, want)
		}
		record[rapid.IntRange(0, len(record)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		record = record[:rapid.IntRange(0, len(record)).Draw(t, "cut to")]
		if got, err := AppendOutputs(slices.Clone(before), record); err != nil && !slices.Equal(got, before) {
			t.Fatalf("of a torn record is told %+v, with %v", got, err)
		}
	})
}
