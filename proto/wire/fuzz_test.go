package wire

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// Whatever comes over the line in whatever pieces, it is read as gRPC's own codec reads it,
// or refused as there. A message is a head, and as many bytes of one kind as make output in
// bulk, and a tail.
func FuzzUnmarshal(f *testing.F) {
	bulk := func(m *agentv1.AgentMessage) []byte {
		raw, err := newCodec().Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return raw.Materialize()
	}
	appends := func(size int) *agentv1.AgentMessage {
		return &agentv1.AgentMessage{Body: &agentv1.AgentMessage_LogAppend{LogAppend: &agentv1.LogAppend{
			Key: &agentv1.AttemptKey{RunId: "r", Attempt: 1, Fence: 2}, Offset: 3, Data: make([]byte, size), Crc32C: 4,
		}}}
	}
	for _, size := range []int{leastBulk, LogChunk} {
		raw := bulk(appends(size))
		f.Add(raw[:len(raw)-size], uint32(size), []byte{}, uint16(100))
		f.Add(raw[:len(raw)-size], uint32(size-1), []byte{0}, uint16(1<<16-1))
		f.Add(raw[:len(raw)-size], uint32(size+1), []byte{}, uint16(7))      // longer than it says
		f.Add(raw[:len(raw)-size], uint32(size-1), []byte{}, uint16(0))      // cut off
		f.Add(raw[1:len(raw)-size], uint32(size), []byte{0x2a}, uint16(4))   // another field
		f.Add(raw[:len(raw)-size], uint32(size), raw[:40], uint16(4000))     // and more of them
		f.Add([]byte{0x42, 0xff}, uint32(size), bulk(appends(1)), uint16(2)) // a length without end
	}
	f.Add(bytes.Repeat([]byte{0xff}, 30), uint32(leastBulk), []byte{}, uint16(3))
	f.Fuzz(func(t *testing.T, head []byte, fill uint32, tail []byte, cut uint16) {
		raw := slices.Concat(head, make([]byte, fill%(2*MaxLogChunk)), tail)
		first := min(int(cut), len(raw))
		var data mem.BufferSlice
		for _, part := range [][]byte{raw[:first], raw[first:]} {
			if len(part) > 0 {
				data = append(data, mem.SliceBuffer(part))
			}
		}
		var ours, theirs agentv1.AgentMessage
		err, want := newCodec().Unmarshal(data, &ours), proto.Unmarshal(raw, &theirs)
		if (err == nil) != (want == nil) {
			t.Fatalf("ours says %v, theirs %v", err, want)
		}
		if err == nil && !proto.Equal(&ours, &theirs) {
			t.Fatalf("ours reads a message of %d bytes that is not theirs, of %d", proto.Size(&ours), proto.Size(&theirs))
		}
	})
}
