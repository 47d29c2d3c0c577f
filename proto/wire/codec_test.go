package wire

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// output draws a message that carries output.
func output(t *rapid.T) *agentv1.AgentMessage {
	size := rapid.SampledFrom([]int{0, 1, leastBulk - 1, leastBulk, LogChunk, MaxLogChunk}).Draw(t, "bytes")
	return &agentv1.AgentMessage{Body: &agentv1.AgentMessage_LogAppend{LogAppend: &agentv1.LogAppend{
		Key:    &agentv1.AttemptKey{RunId: rapid.StringMatching(`[a-z0-9]{0,26}`).Draw(t, "run"), Attempt: rapid.Uint32().Draw(t, "attempt"), Fence: rapid.Uint64().Draw(t, "fence")},
		Offset: rapid.Int64().Draw(t, "offset"),
		Data:   bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, size),
		Crc32C: rapid.Uint32().Draw(t, "crc"),
	}}}
}

// An end with the codec and one with gRPC's own understand each other.
func TestCodecSaysTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := output(t)
		data, err := newCodec().Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var theirs agentv1.AgentMessage
		if err := proto.Unmarshal(data.Materialize(), &theirs); err != nil || !proto.Equal(m, &theirs) {
			t.Fatalf("theirs: %v, %v", err, theirs.GetLogAppend().GetKey())
		}
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, came := range [][]byte{raw, data.Materialize()} {
			var ours agentv1.AgentMessage
			if err := newCodec().Unmarshal(torn(came), &ours); err != nil || !proto.Equal(m, &ours) {
				t.Fatalf("ours: %v, %v", err, ours.GetLogAppend().GetKey())
			}
		}
	})
}

// Output that nobody gave back is nobody else's.
func TestOutputIsReusedOnlyWhenItIsGivenBack(t *testing.T) {
	receive := func(b byte) []byte {
		var m agentv1.AgentMessage
		data, err := newCodec().Marshal(&agentv1.AgentMessage{Body: &agentv1.AgentMessage_LogAppend{
			LogAppend: &agentv1.LogAppend{Data: bytes.Repeat([]byte{b}, MaxLogChunk)},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := newCodec().Unmarshal(torn(data.Materialize()), &m); err != nil {
			t.Fatal(err)
		}
		return m.GetLogAppend().GetData()
	}
	first := receive(1)
	if cap(first) != outputCap {
		t.Errorf("a large chunk came in a buffer of %d bytes that can't be reused, want %d", cap(first), outputCap)
	}
	for b := range byte(100) {
		ReuseOutput(receive(b))
		ReuseOutput(make([]byte, b)) // of another size, from elsewhere
	}
	if want := bytes.Repeat([]byte{1}, MaxLogChunk); !bytes.Equal(first, want) {
		t.Error("output has changed that was not given back")
	}
}

// Output that is on its way is nobody else's, however long that takes.
func TestOutputIsReusedOnlyWhenItIsSent(t *testing.T) {
	send := func(b byte) mem.BufferSlice {
		data := OutputBuffer(MaxLogChunk)
		for i := range data {
			data[i] = b
		}
		way, err := newCodec().Marshal(&agentv1.AgentMessage{Body: &agentv1.AgentMessage_LogAppend{LogAppend: &agentv1.LogAppend{Data: data}}})
		if err != nil {
			t.Fatal(err)
		}
		return way
	}
	first := send(1)
	first.Ref() // it is also kept to be sent again
	first.Free()
	given := map[*byte]bool{}
	for b := range byte(100) {
		way := send(b)
		given[&way[1].ReadOnlyData()[0]] = true
		way.Free()
	}
	if want := bytes.Repeat([]byte{1}, MaxLogChunk); !bytes.Equal(first[1].ReadOnlyData(), want) {
		t.Error("output has changed that was not sent yet")
	}
	if len(given) == 100 {
		t.Error("100 chunks that were sent took as many buffers")
	}
}

// Whatever comes over the line, the codec makes of it what gRPC's own does.
func TestCodecUnderstandsTheSame(t *testing.T) {
	pieces := []func(t *rapid.T, raw []byte) []byte{
		func(t *rapid.T, raw []byte) []byte { return raw[:rapid.IntRange(0, len(raw)).Draw(t, "cut")] },
		func(t *rapid.T, raw []byte) []byte {
			return append(raw, rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "more")...)
		},
		func(t *rapid.T, raw []byte) []byte { // one after another is one that adds to the other
			more, _ := proto.Marshal(output(t))
			return append(raw, more...)
		},
		func(t *rapid.T, raw []byte) []byte {
			raw[min(rapid.IntRange(0, 80).Draw(t, "at"), len(raw)-1)] = rapid.Byte().Draw(t, "damage")
			return raw
		},
		func(t *rapid.T, _ []byte) []byte { // fields in any order, some twice, some unknown
			var body []byte
			for range rapid.IntRange(0, 6).Draw(t, "fields") {
				body = protowire.AppendTag(body, protowire.Number(rapid.IntRange(1, 6).Draw(t, "field")), protowire.BytesType)
				body = protowire.AppendBytes(body, make([]byte, rapid.SampledFrom([]int{0, 2, 5000}).Draw(t, "size")))
			}
			raw := protowire.AppendTag(nil, logAppendField, protowire.BytesType)
			return protowire.AppendBytes(raw, body)
		},
	}
	rapid.Check(t, func(t *rapid.T) {
		raw, err := proto.Marshal(output(t))
		if err != nil {
			t.Fatal(err)
		}
		raw = rapid.SampledFrom(pieces).Draw(t, "how")(t, raw)
		ours := output(t) // what was in it before is gone
		var theirs agentv1.AgentMessage
		err, want := newCodec().Unmarshal(torn(raw), ours), proto.Unmarshal(raw, &theirs)
		if (err == nil) != (want == nil) {
			t.Fatalf("%d bytes: %v, want %v", len(raw), err, want)
		}
		if want == nil && !proto.Equal(ours, &theirs) {
			t.Fatalf("%d bytes: another message", len(raw))
		}
	})
}

// torn is data as it comes: in frames.
func torn(raw []byte) (data mem.BufferSlice) {
	for len(raw) > 0 {
		n := min(len(raw), LogChunk)
		data = append(data, mem.SliceBuffer(raw[:n]))
		raw = raw[n:]
	}
	return data
}
