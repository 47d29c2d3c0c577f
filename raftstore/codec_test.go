package raftstore

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	logv1 "github.com/schedd/schedd/proto/schedd/log/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// commands is one of each.
var commands = []state.Command{
	state.InitCluster{},
	state.PutJob{},
	state.DeleteJob{},
	state.PauseJob{},
	state.ResumeJob{},
	state.Quarantine{},
	state.Decide{},
	state.Request{},
	state.Assign{},
	state.Start{},
	state.Finish{},
	state.Cancel{},
	state.GiveUp{},
	state.PutWorker{},
	state.SetOffline{},
	state.UpdateWorker{},
	state.DrainWorker{},
	state.RemoveWorker{},
	state.Prune{},
	state.SetStandby{},
	state.ClockJumped{},
	state.SetDirect{},
	state.SetEnforcement{},
}

// records is one of each that a snapshot holds, with the way there and back.
var records = map[reflect.Type]func(any) (proto.Message, func(*decoder) any){
	reflect.TypeFor[state.Job](): func(v any) (proto.Message, func(*decoder) any) {
		var e encoder
		j := v.(state.Job)
		p := e.job(&j)
		return p, func(d *decoder) any { return *d.job(p) }
	},
	reflect.TypeFor[state.Run](): func(v any) (proto.Message, func(*decoder) any) {
		var e encoder
		r := v.(state.Run)
		p := e.run(&r)
		return p, func(d *decoder) any { return *d.run(p) }
	},
	reflect.TypeFor[state.Worker](): func(v any) (proto.Message, func(*decoder) any) {
		var e encoder
		w := v.(state.Worker)
		p := e.worker(&w)
		return p, func(d *decoder) any { return *d.worker(p) }
	},
	reflect.TypeFor[state.Span](): func(v any) (proto.Message, func(*decoder) any) {
		var e encoder
		p := e.span(v.(state.Span))
		return p, func(d *decoder) any { return d.span(p) }
	},
	reflect.TypeFor[state.KeyedTrack](): func(v any) (proto.Message, func(*decoder) any) {
		var e encoder
		k := v.(state.KeyedTrack)
		p := e.track(k, false)
		return p, func(d *decoder) any {
			l := d.track(p)
			l.Track.Closed = k.Track.Closed // they follow in records of their own
			return l
		}
	},
}

// enums tells the valid values of each enumeration: from, to.
var enums = map[reflect.Type][2]int{
	reflect.TypeFor[state.Phase]():      {int(state.Pending), int(state.Missed)},
	reflect.TypeFor[state.Outcome]():    {int(state.Unfinished), int(state.OutcomeLeaseExpired)},
	reflect.TypeFor[state.Decision]():   {int(state.DecidedRun), int(state.DecidedMissed)},
	reflect.TypeFor[state.Gap]():        {int(state.GapRunAfter), int(state.GapSkip)},
	reflect.TypeFor[state.DSTOverlap](): {int(state.DSTOverlapFirst), int(state.DSTOverlapBoth)},
	reflect.TypeFor[state.Strategy]():   {int(state.LeastLoaded), int(state.PreferFirst)},
	reflect.TypeFor[state.Overlap]():    {int(state.OverlapSkip), int(state.OverlapReplace)},
	reflect.TypeFor[state.CatchUp]():    {int(state.CatchUpLatest), int(state.CatchUpNone)},
	reflect.TypeFor[state.OnLost]():     {int(state.OnLostFail), int(state.OnLostWait)},
	reflect.TypeFor[state.Means]():      {int(state.MeansUnknown), int(state.MeansCgroupV2)},
}

// filler fills values of any type by reflection, so that no field can be
// forgotten. A full one leaves no field at its zero.
type filler struct {
	t    *rapid.T
	full bool
}

func (f filler) some(label string) bool { return f.full || rapid.Bool().Draw(f.t, label) }

func (f filler) fill(v reflect.Value) {
	switch v.Type() {
	case reflect.TypeFor[time.Time]():
		if f.some("instant") {
			n := rapid.Int64Range(1, 1<<62).Draw(f.t, "nanos") * rapid.SampledFrom([]int64{1, -1}).Draw(f.t, "sign")
			v.Set(reflect.ValueOf(time.Unix(0, n).UTC()))
		}
		return
	case reflect.TypeFor[state.Pairs]():
		m := map[string]string{}
		f.fill(reflect.ValueOf(&m).Elem())
		v.Set(reflect.ValueOf(state.PairsOf(m))) // in order
		return
	case reflect.TypeFor[*state.Policy](), reflect.TypeFor[*state.Trigger](): // never without
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem())
		return
	case reflect.TypeFor[state.RunID]():
		if f.some("id") {
			copy(v.Slice(0, v.Len()).Bytes(), rapid.SliceOfN(rapid.ByteRange(1, 255), 16, 16).Draw(f.t, "id"))
		}
		return
	}
	if e, ok := enums[v.Type()]; ok {
		from := e[0]
		if f.full {
			from = max(from, 1)
		}
		v.SetInt(int64(rapid.IntRange(from, e[1]).Draw(f.t, v.Type().Name())))
		return
	}
	f.fillKind(v)
}

func (f filler) fillKind(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		if f.some("string") {
			v.SetString(rapid.StringN(1, 8, 16).Draw(f.t, "string"))
		}
	case reflect.Bool:
		v.SetBool(f.some("bool"))
	case reflect.Int, reflect.Int64:
		if f.some("int") {
			v.SetInt(rapid.Int64Range(1, 1<<60).Draw(f.t, "int") * rapid.SampledFrom([]int64{1, -1}).Draw(f.t, "sign"))
		}
	case reflect.Uint64, reflect.Uint8:
		if f.some("uint") {
			v.SetUint(rapid.Uint64Range(1, 255).Draw(f.t, "uint"))
		}
	case reflect.Float64:
		if f.some("float") {
			v.SetFloat(rapid.Float64Range(0.1, 100).Draw(f.t, "float"))
		}
	case reflect.Pointer:
		if f.some("pointer") {
			v.Set(reflect.New(v.Type().Elem()))
			f.fill(v.Elem())
		}
	case reflect.Slice:
		if f.some("list") {
			n := rapid.IntRange(1, 3).Draw(f.t, "n")
			v.Set(reflect.MakeSlice(v.Type(), n, n))
			for i := range n {
				f.fill(v.Index(i))
			}
		}
	case reflect.Map:
		if f.some("map") {
			v.Set(reflect.MakeMap(v.Type()))
			for range rapid.IntRange(1, 3).Draw(f.t, "n") {
				k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
				f.fill(k)
				f.fill(e)
				v.SetMapIndex(k, e)
			}
		}
	case reflect.Struct:
		for _, field := range v.Fields() {
			f.fill(field)
		}
	default:
		panic("the test does not know how to fill a " + v.Type().String())
	}
}

// fill returns a value of that type.
func fill(t *rapid.T, typ reflect.Type, full bool) any {
	v := reflect.New(typ).Elem()
	filler{t, full}.fill(v)
	switch x := v.Addr().Interface().(type) {
	case *state.PutJob:
		if x.Definition == nil { // never without
			x.Definition = &state.Definition{Policy: &state.Policy{}}
		}
	case *state.KeyedTrack:
		if x.Track == nil {
			x.Track = &state.Track{}
		}
		if x.Track.Open.Count == 0 { // says that there is none
			x.Track.Open = state.Span{}
		}
		x.Track.Trigger = &state.Trigger{ID: x.Key.Trigger}
	}
	return v.Interface()
}

// A field that some value does not fill could be forgotten by the codec.
func TestFillerFillsAllFields(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for _, c := range commands {
			if zero := zeroField(reflect.ValueOf(fill(t, reflect.TypeOf(c), true))); zero != "" {
				t.Fatalf("%T%s is zero", c, zero)
			}
		}
	})
}

func zeroField(v reflect.Value) string {
	if v.IsZero() {
		return " "
	}
	if v.Kind() == reflect.Pointer {
		return zeroField(v.Elem())
	}
	if v.Kind() != reflect.Struct || v.Type() == reflect.TypeFor[time.Time]() {
		return ""
	}
	for i := range v.NumField() {
		if zero := zeroField(v.Field(i)); zero != "" {
			return "." + v.Type().Field(i).Name + zero
		}
	}
	return ""
}

func TestCommandsRoundTrip(t *testing.T) {
	for _, c := range commands {
		for _, full := range []bool{true, false} {
			t.Run(reflect.TypeOf(c).Name(), func(t *testing.T) {
				rapid.Check(t, func(t *rapid.T) {
					want := state.Entry{Now: time.Unix(0, 1).UTC(), Commands: []state.Command{fill(t, reflect.TypeOf(c), full).(state.Command)}}
					b, err := encodeCommand(want.Commands[0])
					if err != nil {
						t.Fatal(err)
					}
					entry, err := joinEntry(want.Now, [][]byte{b})
					if err != nil {
						t.Fatal(err)
					}
					got, err := decodeEntry(entry, newShared())
					if err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(want, got.Entry); diff != "" {
						t.Fatalf("came back otherwise (-want +got):\n%s", diff)
					}
				})
			})
		}
	}
}

func TestRecordsRoundTrip(t *testing.T) {
	for typ, way := range records {
		for _, full := range []bool{true, false} {
			t.Run(typ.Name(), func(t *testing.T) {
				rapid.Check(t, func(t *rapid.T) {
					want := fill(t, typ, full)
					p, back := way(want)
					if _, err := marshal.Marshal(p); err != nil {
						t.Fatal(err)
					}
					var d decoder
					got := back(&d)
					if d.err != nil {
						t.Fatal(d.err)
					}
					if diff := cmp.Diff(want, got); diff != "" {
						t.Fatalf("came back otherwise (-want +got):\n%s", diff)
					}
				})
			})
		}
	}
}

// The list of commands above has all that package state has.
func TestAllCommandsAreTested(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "state/command.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared, tested := map[string]bool{}, map[string]bool{}
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == "command" {
			declared[f.Recv.List[0].Type.(*ast.Ident).Name] = true
		}
	}
	for _, c := range commands {
		tested[reflect.TypeOf(c).Name()] = true
	}
	if diff := cmp.Diff(declared, tested); diff != "" {
		t.Errorf("commands declared and tested differ:\n%s", diff)
	}
	if n := (&logv1.Command{}).ProtoReflect().Descriptor().Fields().Len(); n != len(commands) {
		t.Errorf("the log knows %d commands, the state %d", n, len(commands))
	}
}

// Each enumeration is stored whole, and under its own names.
func TestEnumsMatch(t *testing.T) {
	for typ, pair := range map[reflect.Type]protoreflect.EnumDescriptor{
		reflect.TypeFor[state.Phase]():      logv1.Phase(0).Descriptor(),
		reflect.TypeFor[state.Outcome]():    logv1.Outcome(0).Descriptor(),
		reflect.TypeFor[state.Decision]():   logv1.Decision(0).Descriptor(),
		reflect.TypeFor[state.Gap]():        logv1.Gap(0).Descriptor(),
		reflect.TypeFor[state.DSTOverlap](): logv1.DSTOverlap(0).Descriptor(),
		reflect.TypeFor[state.Strategy]():   logv1.Strategy(0).Descriptor(),
		reflect.TypeFor[state.Overlap]():    logv1.Overlap(0).Descriptor(),
		reflect.TypeFor[state.CatchUp]():    logv1.CatchUp(0).Descriptor(),
		reflect.TypeFor[state.OnLost]():     logv1.OnLost(0).Descriptor(),
	} {
		if have, stored := enums[typ][1]-enums[typ][0]+1, pair.Values().Len()-1; have != stored {
			t.Errorf("%v has %d values, of which %d can be stored", typ, have, stored)
		}
	}
	var e encoder
	for p := state.Pending; p <= state.Missed; p++ {
		name := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(e.phase(p).String(), "PHASE_"), "_", " "))
		if name != p.String() {
			t.Errorf("%v is stored as %q", p, name)
		}
	}
}

// An entry is put together by hand, of parts; it must be what protobuf makes.
func TestJoinEntryIsAnEntry(t *testing.T) {
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	var parts [][]byte
	want := &logv1.Entry{Now: now.UnixNano()}
	for _, c := range []state.Command{state.SetOffline{ID: "a"}, state.InitCluster{}} {
		b, err := encodeCommand(c)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, b)
		var e encoder
		want.Commands = append(want.Commands, e.command(c))
	}
	got, err := joinEntry(now, parts)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := marshal.Marshal(want); err != nil || !slices.Equal(b, got) {
		t.Errorf("joined %x, protobuf makes %x, %v", got, b, err)
	}
}

func TestWhatCannotBeStored(t *testing.T) {
	far := time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name    string
		command state.Command
		want    string
	}{
		{"no command", nil, "no such command"},
		{"a job without a definition", state.PutJob{}, "no definition"},
		{"an instant beyond the years", state.ResumeJob{Effective: far}, "between the years 1678 and 2262"},
		{"the epoch, which would come back as none", state.ResumeJob{Effective: time.Unix(0, 0)}, "can't be told from none"},
		{"a phase that is none", state.GiveUp{Phase: state.Missed + 1}, "state.Phase 10 is none"},
		{"a phase before all", state.GiveUp{Phase: -1}, "state.Phase -1 is none"},
		{"a decision of nothing", state.Decide{Decisions: []state.Decided{{}}}, "state.Decision 0 is none"},
		{"a name that is no text", state.SetOffline{ID: "\xff"}, "UTF-8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := encodeCommand(tt.command)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want one that says %q", err, tt.want)
			}
		})
	}
}

// Jobs that have a trigger, a policy or labels alike share them, however many there are, and
// none gets what is another's.
func TestWhatIsAlikeIsShared(t *testing.T) {
	among := newShared()
	read := func(minutes, attempts int) *state.Definition {
		t.Helper()
		d := &state.Definition{
			Triggers: []*state.Trigger{{ID: "t", Every: &state.Every{Interval: time.Duration(minutes) * time.Minute}}},
			Policy:   &state.Policy{Retry: state.Retry{MaxAttempts: attempts, ExitCodes: []int{75}}},
			Labels:   state.Pairs{{Key: "minutes", Value: fmt.Sprint(minutes)}},
		}
		c, err := encodeCommand(state.PutJob{Key: state.JobKey{Name: "j"}, Definition: d, Effective: time.Unix(1, 0).UTC()})
		if err != nil {
			t.Fatal(err)
		}
		entry, _ := joinEntry(time.Unix(1, 0).UTC(), [][]byte{c})
		e, err := decodeEntry(entry, among)
		if err != nil {
			t.Fatal(err)
		}
		got := e.Commands[0].(state.PutJob).Definition
		if diff := cmp.Diff(d, got); diff != "" {
			t.Fatalf("read otherwise than written (-written +read):\n%s", diff)
		}
		return got
	}
	for i := range maxShared + 1 {
		read(i+2, i+2)
		if len(among.triggers) > maxShared || len(among.policies) > maxShared || len(among.labels) > maxShared {
			t.Fatalf("%d triggers, %d policies and %d sets of labels are remembered, of %d allowed", len(among.triggers), len(among.policies), len(among.labels), maxShared)
		}
	}
	first := read(1, 1)
	if first.Triggers[0] != read(1, 2).Triggers[0] || first.Policy != read(2, 1).Policy {
		t.Error("equal triggers or policies are kept twice")
	}
	if first.Triggers[0] == read(2, 1).Triggers[0] || first.Policy == read(1, 2).Policy {
		t.Error("different triggers or policies are taken for one")
	}
	if other := read(1, 2); &first.Triggers[0] != &other.Triggers[0] || &first.Labels[0] != &other.Labels[0] {
		t.Error("equal labels, or lists of one trigger, are kept twice")
	}
	if &first.Labels[0] == &read(2, 1).Labels[0] {
		t.Error("different labels are taken for one")
	}
}

// What is remembered of values that jobs share changes nothing of what is written, also
// when there are more of them than are remembered.
func TestRememberingWritesTheSame(t *testing.T) {
	var jobs []*state.Job
	for i := range maxShared + 2000 {
		d := idleJob(i % 1000).Definition
		if i >= 1000 {
			d = &state.Definition{
				Labels:   state.Pairs{{Key: "n", Value: fmt.Sprint(i)}},
				Triggers: []*state.Trigger{{ID: "t", Every: &state.Every{Interval: time.Duration(i) * time.Second}}},
				Policy:   &state.Policy{MaxConcurrent: i},
			}
		}
		if i%3 == 0 && 0 < i && i < 1500 {
			d = jobs[i-1].Definition
		}
		jobs = append(jobs, &state.Job{Key: state.JobKey{Name: fmt.Sprint(i)}, UID: uint64(i + 1), Definition: d})
	}
	plain, shared := encoder{}, remembering()
	for range 2 {
		for _, j := range jobs {
			want, got := plain.job(j), shared.job(j)
			if !proto.Equal(want, got) || plain.err != nil || shared.err != nil {
				t.Fatalf("job %s was written as %v, %v; want %v, %v", j.Key.Name, got, shared.err, want, plain.err)
			}
		}
		if len(shared.policies) > maxShared || len(shared.triggers) > maxShared || len(shared.sets) > maxShared {
			t.Errorf("%d policies, %d triggers and %d sets of labels are remembered, of %d allowed", len(shared.policies), len(shared.triggers), len(shared.sets), maxShared)
		}
	}
	j := idleJob(0).Definition
	if first := shared.definition(j); first.GetPolicy() != shared.definition(j).GetPolicy() {
		t.Error("nothing is remembered")
	}
}

// Labels are told apart also where they read alike when written in a row.
func TestLabelsAreNotMixedUp(t *testing.T) {
	d := decoder{shared: newShared()}
	for _, p := range []state.Pairs{{{Key: "a", Value: "bc"}}, {{Key: "ab", Value: "c"}}, {{Key: "a", Value: "b"}, {Key: "c", Value: ""}}, nil} {
		for range 2 {
			if got := d.sharedPairs((&encoder{}).pairs(p)); !slices.Equal(got, p) || d.err != nil {
				t.Errorf("%v was read as %v, %v", p, got, d.err)
			}
		}
	}
	twice := []*logv1.Label{{Key: "a", Value: "b"}, {Key: "a", Value: "b"}}
	for range 2 {
		d := decoder{shared: d.shared}
		if d.sharedPairs(twice); d.err == nil {
			t.Error("a key that is there twice was taken")
		}
	}
}

// Short texts that many jobs and runs have are kept once; so are not those of which nobody
// has the like.
func TestTextsAreShared(t *testing.T) {
	among := newShared()
	read := func(worker string) string {
		t.Helper()
		c, err := encodeCommand(state.Assign{Run: state.RunID{1}, Attempt: 1, Worker: state.WorkerID(worker)})
		if err != nil {
			t.Fatal(err)
		}
		entry, _ := joinEntry(time.Unix(1, 0).UTC(), [][]byte{c})
		e, err := decodeEntry(entry, among)
		if err != nil {
			t.Fatal(err)
		}
		got := string(e.Commands[0].(state.Assign).Worker)
		if got != worker {
			t.Fatalf("%q was written, and %q read", worker, got)
		}
		return got
	}
	same := func(a, b string) bool { return unsafe.StringData(a) == unsafe.StringData(b) }
	for i := range maxTexts + 1 {
		if read(fmt.Sprint("w-", i)); len(among.texts) > maxTexts {
			t.Fatalf("%d texts are remembered, of %d allowed", len(among.texts), maxTexts)
		}
	}
	if !same(read("w-a"), read("w-a")) {
		t.Error("equal texts are kept twice")
	}
	if long := strings.Repeat("x", maxTextLen+1); same(read(long), read(long)) {
		t.Errorf("a text of %d bytes is remembered", len(long))
	}
}

// What a worker says of a failure is kept, broken characters or not.
func TestFreeTextIsAlwaysStored(t *testing.T) {
	c := state.Finish{Reason: "exec \xff: no such file", Attempt: state.Attempt{Outcome: state.OutcomeFailed}}
	b, err := encodeCommand(c)
	if err != nil {
		t.Fatal(err)
	}
	entry, _ := joinEntry(time.Unix(0, 1), [][]byte{b})
	got, err := decodeEntry(entry, newShared())
	if err != nil {
		t.Fatal(err)
	}
	if reason := got.Commands[0].(state.Finish).Reason; reason != "exec \uFFFD: no such file" {
		t.Errorf("reason = %q", reason)
	}
}

// What a newer version wrote is never applied in part, wherever in an entry the
// unknown stands.
func TestUnknownIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := fill(t, reflect.TypeOf(rapid.SampledFrom(commands).Draw(t, "command")), true).(state.Command)
		var e encoder
		p := &logv1.Entry{Now: 1, Commands: []*logv1.Command{e.command(c)}}
		all := messages(p.ProtoReflect())
		m := rapid.SampledFrom(all).Draw(t, "message")
		m.SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
		b, err := marshal.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeEntry(b, newShared()); !errors.Is(err, errNewer) {
			t.Fatalf("with an unknown field in %s: err = %v", m.Descriptor().Name(), err)
		}
	})
}

// messages returns m and all messages in it.
func messages(m protoreflect.Message) []protoreflect.Message {
	all := []protoreflect.Message{m}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				all = append(all, messages(v.List().Get(i).Message())...)
			}
		default:
			all = append(all, messages(v.Message())...)
		}
		return true
	})
	return all
}

func TestDecodeEntryTellsWhatIsWrong(t *testing.T) {
	entry := func(c *logv1.Command) []byte {
		b, err := marshal.Marshal(&logv1.Entry{Now: 1, Commands: []*logv1.Command{c}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"a command that is none", entry(&logv1.Command{}), "holds a command that this version does not know: upgrade this primary"},
		{"a phase of the future", entry(&logv1.Command{Command: &logv1.Command_GiveUp{GiveUp: &logv1.GiveUp{Run: make([]byte, 16), Phase: 99}}}), "holds a Phase (99) that this version does not know: upgrade this primary"},
		{"no phase", entry(&logv1.Command{Command: &logv1.Command_GiveUp{GiveUp: &logv1.GiveUp{Run: make([]byte, 16)}}}), "holds no Phase where one must be"},
		{"a run that is none", entry(&logv1.Command{Command: &logv1.Command_Cancel{Cancel: &logv1.Cancel{Run: make([]byte, 3)}}}), "holds the id of a run of 3 bytes"},
		{"a job without a definition", entry(&logv1.Command{Command: &logv1.Command_PutJob{PutJob: &logv1.PutJob{}}}), "holds a job without a definition"},
		{"a label twice", entry(&logv1.Command{Command: &logv1.Command_UpdateWorker{UpdateWorker: &logv1.UpdateWorker{
			SetLabels: []*logv1.Label{{Key: "a"}, {Key: "a"}},
		}}}), `holds the key "a" twice in a map`},
		{"no entry", []byte("no entry"), "is damaged"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := decodeEntry(tt.data, newShared()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want one that says %q", err, tt.want)
			}
		})
	}
}

// Whatever bytes are in the log, reading them gives an entry or an error; and an
// entry can be applied.
func FuzzDecodeEntry(f *testing.F) {
	for _, c := range commands {
		if p, ok := c.(state.PutJob); ok {
			p.Definition = &state.Definition{Policy: &state.Policy{}, Triggers: []*state.Trigger{{ID: "t", Every: &state.Every{Interval: 1}}}}
			c = p
		}
		b, err := encodeCommand(c)
		if err != nil {
			f.Fatal(err)
		}
		entry, err := joinEntry(time.Unix(0, 1), [][]byte{b, b})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(entry)
	}
	for _, part := range split(f, savedOf(f, state.New())) {
		f.Add(part)
	}
	f.Add(parts(f, savedOf(f, state.New()))[0])
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := decodeEntry(data, newShared()); err != nil {
			return
		}
		m := newFSM(Config{Log: quiet()}, func(error) {})
		m.Apply(&raft.Log{Index: 1, Data: data})
		m.Apply(&raft.Log{Index: 2, Data: data})
		if err := m.err(); err != nil && !errors.Is(err, errNewer) {
			t.Errorf("an entry can't be applied: %v", err)
		}
		if _, err := Hash(m.state); err != nil {
			t.Errorf("what was in the log can't be in a snapshot: %v", err)
		}
	})
}
