package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	logv1 "github.com/schedd/schedd/proto/schedd/log/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// errNewer is what a newer version wrote, and this one does not know. Leaving it
// out would make this primary disagree with the others.
var errNewer = errors.New("that this version does not know: upgrade this primary")

// marshal is how everything is stored: equal values become equal bytes.
var marshal = proto.MarshalOptions{Deterministic: true}

// encodeCommand returns a command as it stands in an entry. It fails when c
// holds what can't be stored, such as an instant beyond the year 2262.
func encodeCommand(c state.Command) ([]byte, error) {
	var e encoder
	p := e.command(c)
	if e.err != nil {
		return nil, fmt.Errorf("encoding %T: %w", c, e.err)
	}
	b, err := marshal.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encoding %T: %w", c, err)
	}
	return b, nil
}

// The fields of an Entry.
const (
	fieldNow      protowire.Number = 1
	fieldCommands protowire.Number = 2
)

// joinEntry makes the bytes of an Entry of encoded commands, which their
// proposers have encoded each on its own.
func joinEntry(now time.Time, commands [][]byte) ([]byte, error) {
	var e encoder
	nanos := e.time(now)
	if e.err != nil {
		return nil, fmt.Errorf("encoding the time of an entry: %w", e.err)
	}
	size := 16
	for _, c := range commands {
		size += len(c) + 8
	}
	b := make([]byte, 0, size)
	b = protowire.AppendTag(b, fieldNow, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, uint64(nanos))
	for _, c := range commands {
		b = protowire.AppendTag(b, fieldCommands, protowire.BytesType)
		b = protowire.AppendBytes(b, c)
	}
	return b, nil
}

// encodePart makes the bytes of an Entry of a part of a snapshot.
func encodePart(now time.Time, part *logv1.Restore) ([]byte, error) {
	var e encoder
	p := &logv1.Entry{Now: e.time(now), Restore: part}
	if e.err != nil {
		return nil, fmt.Errorf("encoding the time of an entry: %w", e.err)
	}
	b, err := marshal.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encoding part of a snapshot: %w", err)
	}
	return b, nil
}

// entry is one entry of the log: commands, or part of a snapshot.
type entry struct {
	state.Entry
	part *logv1.Restore // nil: commands
}

// decodeEntry reads what joinEntry or encodePart wrote, on this version or another.
func decodeEntry(data []byte, among shared) (entry, error) {
	var p logv1.Entry
	d := decoder{shared: among}
	if all, err := unmarshalKnown(data, &p); err != nil {
		return entry{}, fmt.Errorf("is damaged: %w", err)
	} else if !all {
		for _, c := range p.GetCommands() {
			if c.GetCommand() == nil { // to protobuf it is an unknown field, too
				d.failf("a command %w", errNewer)
			}
		}
		d.known(&p)
	}
	if p.GetRestore() != nil && len(p.GetCommands()) > 0 {
		d.failf("commands beside part of a snapshot")
	}
	e := entry{part: p.GetRestore(), Entry: state.Entry{Now: d.time(p.GetNow()), Commands: make([]state.Command, 0, len(p.GetCommands()))}}
	for _, c := range p.GetCommands() {
		if d.err == nil {
			e.Commands = append(e.Commands, d.command(c))
		}
	}
	if d.err != nil {
		return entry{}, fmt.Errorf("holds %w", d.err)
	}
	return e, nil
}

// encoder turns what the state holds into what is stored. err is the first
// thing that can't be. What was written of values that many jobs share is remembered by
// who writes many of them; where the maps are nil it is not.
type encoder struct {
	err      error
	policies map[*state.Policy]*logv1.Policy
	triggers map[*state.Trigger]*logv1.Trigger
	sets     map[*state.Pair][]*logv1.Label // of labels, by the first of them
}

// remembering returns an encoder that remembers.
func remembering() encoder {
	return encoder{policies: map[*state.Policy]*logv1.Policy{}, triggers: map[*state.Trigger]*logv1.Trigger{}, sets: map[*state.Pair][]*logv1.Label{}}
}

// remembered returns what write makes of s, or made of the same one before.
func remembered[S, P any](known map[*S]P, s *S, write func(*S) P) P {
	if p, ok := known[s]; ok {
		return p
	}
	p := write(s)
	if known == nil {
		return p
	}
	if len(known) >= maxShared {
		clear(known)
	}
	known[s] = p
	return p
}

func (e *encoder) failf(format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf(format, args...)
	}
}

// The instants that an int64 of nanoseconds can tell.
var (
	minTime = time.Unix(0, math.MinInt64)
	maxTime = time.Unix(0, math.MaxInt64)
)

// time returns the nanoseconds of an instant, 0 for none.
func (e *encoder) time(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	if t.Before(minTime) || t.After(maxTime) {
		e.failf("the instant %v is not between the years 1678 and 2262", t)
		return 0
	}
	n := t.UnixNano()
	if n == 0 {
		e.failf("the instant %v can't be told from none", t)
	}
	return n
}

// text makes free text of any origin storable, so that a report is never refused
// for a broken character.
func (e *encoder) text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func (e *encoder) labels(m map[string]string) []*logv1.Label {
	ls := make([]*logv1.Label, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		ls = append(ls, &logv1.Label{Key: k, Value: m[k]})
	}
	return ls
}

func (e *encoder) pairs(p state.Pairs) []*logv1.Label {
	return each(p, func(kv state.Pair) *logv1.Label { return &logv1.Label{Key: kv.Key, Value: kv.Value} })
}

// ref returns the id of a run that may be none.
func (e *encoder) ref(id state.RunID) []byte {
	if id == (state.RunID{}) {
		return nil
	}
	return id[:]
}

// stored is an enumeration of the stored form. Its 0 is never stored.
type stored interface {
	~int32
	Descriptor() protoreflect.EnumDescriptor
}

// toEnum returns what stands for v: the same number for an enumeration that
// starts at 1, the next one for an enumeration that starts at 0.
func toEnum[P stored, S ~int](e *encoder, v, first S) P {
	p := P(v - first + 1)
	if p == 0 || p.Descriptor().Values().ByNumber(protoreflect.EnumNumber(p)) == nil {
		e.failf("%T %d is none", v, int(v))
		return 0
	}
	return p
}

// fromEnum is the inverse of toEnum.
func fromEnum[S ~int, P stored](d *decoder, p P, first S) S {
	switch {
	case p == 0:
		d.failf("no %s where one must be", p.Descriptor().Name())
		return first
	case p.Descriptor().Values().ByNumber(protoreflect.EnumNumber(p)) == nil:
		d.failf("a %s (%d) %w", p.Descriptor().Name(), int32(p), errNewer)
		return first
	}
	return S(p) + first - 1
}

// decoder turns what is stored into what the state holds. err is the first thing
// that it could not make sense of, as a noun. Empty lists and maps come back as
// nil, and instants in UTC, whatever they were when they were stored.
type decoder struct {
	err    error
	shared shared
}

// shared is what most jobs and runs have like others, by how it is stored; the zero value
// shares nothing. Of a million jobs it would take some 700 bytes each.
type shared struct {
	policies map[string]*state.Policy
	triggers map[string]*sharedTrigger
	labels   map[string]state.Pairs
	texts    map[string]string
}

// sharedTrigger is a trigger with the list that a job has which has no other.
type sharedTrigger struct {
	state.Trigger
	alone [1]*state.Trigger
}

// maxShared bounds how many policies, triggers, and sets of labels are looked through: a trigger for each
// minute of the day in eleven time zones. When there are more, those that come next are
// shared anew, and jobs that were defined in turns then share nothing. What takes more
// than maxSharedLen bytes is hardly like another, and would stay in memory when no job has
// it any more. Texts are bounded likewise; among them are those that nobody else has.
const (
	maxShared    = 16_384
	maxSharedLen = 256
	maxTexts     = 4096
	maxTextLen   = 64
)

func newShared() shared {
	return shared{policies: map[string]*state.Policy{}, triggers: map[string]*sharedTrigger{}, labels: map[string]state.Pairs{}, texts: map[string]string{}}
}

// share returns what read makes of p, or made of an equal one before.
func share[P proto.Message, S any](d *decoder, known map[string]*S, p P, read func(P) *S) *S {
	if known == nil {
		return read(p)
	}
	key, err := marshal.Marshal(p)
	if s := known[string(key)]; s != nil && err == nil {
		return s
	}
	s := read(p)
	if d.err != nil || err != nil || len(key) > maxSharedLen {
		return s
	}
	if len(known) >= maxShared {
		clear(known)
	}
	known[string(key)] = s
	return s
}

// sharedPairs returns what pairs does, or made of equal ones before.
func (d *decoder) sharedPairs(ls []*logv1.Label) state.Pairs {
	var room [maxSharedLen]byte
	key := room[:0]
	for _, l := range ls {
		key = append(binary.AppendUvarint(key, uint64(len(l.GetKey()))), l.GetKey()...)
		key = append(binary.AppendUvarint(key, uint64(len(l.GetValue()))), l.GetValue()...)
	}
	known := d.shared.labels
	if p, ok := known[string(key)]; ok {
		return p
	}
	p := d.pairs(ls)
	if known == nil || d.err != nil || len(key) > maxSharedLen {
		return p
	}
	if len(known) >= maxShared {
		clear(known)
	}
	known[string(key)] = p
	return p
}

// text returns s, or an equal text of before.
func (d *decoder) text(s string) string {
	known := d.shared.texts
	if known == nil || s == "" || len(s) > maxTextLen {
		return s
	}
	if t, ok := known[s]; ok {
		return t
	}
	if len(known) >= maxTexts {
		clear(known)
	}
	known[s] = s
	return s
}

// texts shares each of a list, which it copies: one that grew as it was read has room for
// more.
func (d *decoder) texts(list []string) []string { return each(list, d.text) }

func (d *decoder) failf(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
}

// known fails when m, or a message in it, has a field that this version does
// not know.
func (d *decoder) known(m proto.Message) {
	if name := unknownIn(m.ProtoReflect()); name != "" {
		d.failf("a field of %s %w", name, errNewer)
	}
}

// unmarshalKnown reads a message, and tells whether it is sure that this version knows all
// of it. When it is not, [decoder.known] tells.
//
// What is known of a message takes no less space than when it is written anew, so if
// it takes all that there is, nothing was left out. To see that costs a tenth of looking at
// each field of each message.
func unmarshalKnown(data []byte, p proto.Message) (all bool, err error) {
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, p); err != nil {
		return false, err
	}
	if proto.Size(p) == len(data) {
		return true, nil
	}
	return false, proto.Unmarshal(data, p)
}

// unknownIn returns the name of the first message with an unknown field, m or
// one in it.
func unknownIn(m protoreflect.Message) (name protoreflect.Name) {
	if len(m.GetUnknown()) > 0 {
		return m.Descriptor().Name()
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				if name == "" {
					name = unknownIn(v.List().Get(i).Message())
				}
			}
		default:
			name = unknownIn(v.Message())
		}
		return name == ""
	})
	return name
}

func (d *decoder) time(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

func (d *decoder) labels(ls []*logv1.Label) map[string]string {
	if len(ls) == 0 {
		return nil
	}
	m := make(map[string]string, len(ls))
	for _, l := range ls {
		if _, ok := m[l.GetKey()]; ok {
			d.failf("the key %q twice in a map", l.GetKey())
		}
		m[l.GetKey()] = l.GetValue()
	}
	return m
}

// pairs returns what labels does, without a map on the way.
func (d *decoder) pairs(ls []*logv1.Label) state.Pairs {
	p := state.Pairs(each(ls, func(l *logv1.Label) state.Pair {
		return state.Pair{Key: d.text(l.GetKey()), Value: d.text(l.GetValue())}
	}))
	slices.SortFunc(p, func(a, b state.Pair) int { return strings.Compare(a.Key, b.Key) })
	for i := 1; i < len(p); i++ {
		if p[i].Key == p[i-1].Key {
			d.failf("the key %q twice in a map", p[i].Key)
		}
	}
	return p
}

func (d *decoder) id(b []byte) state.RunID {
	if len(b) != len(state.RunID{}) {
		d.failf("the id of a run of %d bytes", len(b))
		return state.RunID{}
	}
	return state.RunID(b)
}

// ref reads the id of a run that may be none.
func (d *decoder) ref(b []byte) state.RunID {
	if len(b) == 0 {
		return state.RunID{}
	}
	return d.id(b)
}

// each returns f of each of a list; nil for an empty one.
func each[A, B any](list []A, f func(A) B) []B {
	if len(list) == 0 {
		return nil
	}
	out := make([]B, len(list))
	for i, v := range list {
		out[i] = f(v)
	}
	return out
}

func (d *decoder) int(n int64) int {
	if int64(int(n)) != n {
		d.failf("the number %d, too large for this machine", n)
	}
	return int(n)
}

func (e *encoder) key(k state.JobKey) *logv1.JobKey {
	return &logv1.JobKey{Namespace: k.Namespace, Name: k.Name}
}

func (d *decoder) key(p *logv1.JobKey) state.JobKey {
	return state.JobKey{Namespace: d.text(p.GetNamespace()), Name: p.GetName()}
}
