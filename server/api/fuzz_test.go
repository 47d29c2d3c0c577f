package api

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
)

// Whatever a job says, PutJob answers with a status that it knows; and what it
// takes can be scheduled, and is shown as it was stored.
func FuzzPutJob(f *testing.F) {
	for _, j := range []*schedv1.Job{
		{},
		aJob("j"),
		aJob("j", func(j *schedv1.Job) {
			j.Triggers = append(j.Triggers, &schedv1.Trigger{When: cron("H H(1-5) * * *", "Europe/Berlin")})
		}),
		aJob("j", func(j *schedv1.Job) {
			j.Triggers[0].Exclude = []*schedv1.Exclusion{{What: &schedv1.Exclusion_Date{Date: "2030-01-01"}}}
			j.Policy = &schedv1.Policy{Retry: &schedv1.Retry{Multiplier: 3, ExitCodes: []int32{75}}, Timeout: durationpb.New(time.Hour)}
			j.Target = &schedv1.Target{Selector: "a in (b,c),!d", Strategy: schedv1.Strategy_STRATEGY_SPREAD}
			j.Task = &schedv1.Task{Do: &schedv1.Task_Script{Script: &schedv1.Script{Body: "echo"}}, Env: map[string]string{"A": "b"}}
		}),
	} {
		b, err := proto.Marshal(j)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	store := newMemory()
	s := New(Config{Store: store, History: noPast{}, Group: store})
	f.Fuzz(func(t *testing.T, b []byte) {
		var j schedv1.Job
		if proto.Unmarshal(b, &j) != nil {
			return
		}
		r, err := jobService{Server: s}.PutJob(t.Context(), &schedv1.PutJobRequest{Job: &j})
		switch code := status.Code(toStatus(nil, "", err)); code { // an error without a code panics: there is no log
		case codes.OK:
		case codes.InvalidArgument, codes.Unimplemented:
			return
		default:
			t.Fatalf("%v: %v", code, err)
		}
		k := state.JobKey{Namespace: r.GetJob().GetNamespace(), Name: r.GetJob().GetName()}
		var stored *state.Job
		store.View(func(s *state.State) { stored = s.Job(k) })
		for i := range stored.Definition.Triggers {
			if _, err := plan.Compile(k, stored.Definition.Triggers[i]); err != nil {
				t.Fatal(err)
			}
		}
		again, err := jobService{Server: s}.PutJob(t.Context(), &schedv1.PutJobRequest{Job: r.GetJob()})
		if err != nil || again.GetJob().GetVersion() != r.GetJob().GetVersion() {
			t.Fatalf("applied again: %v, %v", again, err)
		}
	})
}

// Whatever a filter or a token says, it is read or refused.
func FuzzList(f *testing.F) {
	f.Add("job=a,phase in (PHASE_FAILED),!active", "")
	f.Add("labels.x>1,paused", "eyJ2IjoxLCJxIjoiMSJ9")
	s := New(Config{Store: newMemory(), History: noPast{}})
	f.Fuzz(func(t *testing.T, filter, token string) {
		_, err := runService{Server: s}.ListRuns(t.Context(), &schedv1.ListRunsRequest{Filter: filter, PageToken: token})
		_, err2 := jobService{Server: s}.ListJobs(t.Context(), &schedv1.ListJobsRequest{Filter: filter, PageToken: token})
		for _, err := range []error{err, err2} {
			if code := status.Code(toStatus(nil, "", err)); code != codes.OK && code != codes.InvalidArgument {
				t.Fatalf("%v: %v", code, err)
			}
		}
	})
}

// filled returns a message in which each field says something: a name that there is, a
// number that is not right, a message down to some depth.
func filled(m protoreflect.Message, name string, depth int) protoreflect.Message {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		d := fields.Get(i)
		switch {
		case depth == 0 && d.Message() != nil, d.ContainingOneof() != nil && d.Number()%2 == 0:
		case d.IsMap():
			if d.MapValue().Kind() == protoreflect.StringKind {
				m.Mutable(d).Map().Set(protoreflect.ValueOfString(name).MapKey(), protoreflect.ValueOfString(name))
			}
		case d.IsList() && d.Message() != nil:
			filled(m.Mutable(d).List().AppendMutable().Message(), name, depth-1)
		case d.IsList():
			m.Mutable(d).List().Append(word(d, name))
		case d.Message() != nil:
			filled(m.Mutable(d).Message(), name, depth-1)
		default:
			m.Set(d, word(d, name))
		}
	}
	return m
}

// word is what a field of no message says.
func word(d protoreflect.FieldDescriptor, name string) protoreflect.Value {
	switch d.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(name)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(name))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(-1)
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(-1)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(1<<32 - 1)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(1<<64 - 1)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(-1)
	default:
		return protoreflect.ValueOfFloat64(-1)
	}
}

// Whatever is asked of whichever method, it answers with a status of its own, or what was
// asked for, and the primary goes on.
func FuzzCall(f *testing.F) {
	names := slices.Sorted(maps.Keys(methods))
	for n, name := range names {
		for _, said := range []string{"", "j", "no name\x00"} {
			b, err := proto.MarshalOptions{AllowPartial: true}.Marshal(filled(methods[name].in.New(), said, 4).Interface())
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(n), b)
		}
		f.Add(uint8(n), []byte{})
	}
	f.Fuzz(func(t *testing.T, n uint8, asked []byte) {
		m := methods[names[int(n)%len(names)]]
		request := m.in.New().Interface()
		if proto.Unmarshal(asked, request) != nil {
			return
		}
		story(t, func(t *testing.T, p *primary) {
			p.put(aJob("j"))
			p.run("j")
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			stream, err := p.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, m.name)
			if err == nil {
				_ = stream.SendMsg(request) // why it can't be sent is what is answered
				err = stream.CloseSend()
			}
			for err == nil {
				err = stream.RecvMsg(m.out.New().Interface())
			}
			if code := status.Code(err); !errors.Is(err, io.EOF) && (code == codes.Unknown || code == codes.Internal) {
				t.Errorf("%s answers %v", m.name, err)
			}
			if _, err := p.jobs.ListJobs(t.Context(), &schedv1.ListJobsRequest{}); err != nil {
				t.Errorf("and then jobs can't be listed: %v", err)
			}
		})
	})
}
