package wire

import (
	"sync"

	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// leastBulk is from how many bytes on output is worth a way of its own.
const leastBulk = 4 << 10

// The fields of messages that carry output.
const (
	logAppendField protowire.Number = 8 // of AgentMessage
	dataField      protowire.Number = 3 // of LogAppend
)

// codec is gRPC's own for protobuf, except that output in bulk is not copied from message
// to buffer, and from buffer to buffer to message. gRPC's clears a buffer of a megabyte for each
// message of more than 32 KiB, at both ends, which costs more than all else that is done
// with it. What goes over the line is the same: either end may be without it.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(grpcproto.Name)} }

// Name has the content type be what it is without this codec, application/grpc alone:
// somebody on the way may go by it.
func (codec) Name() string { return "" }

// Marshal returns what goes over the line. It keeps the output, which nobody changes
// any more; an [OutputBuffer] is used again when it has gone.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(*agentv1.AgentMessage)
	if !ok || len(m.GetLogAppend().GetData()) < leastBulk {
		return c.CodecV2.Marshal(v)
	}
	l := m.GetLogAppend()
	rest, err := proto.Marshal(&agentv1.LogAppend{Key: l.GetKey(), Offset: l.GetOffset(), Crc32C: l.GetCrc32C()})
	if err != nil {
		return nil, err
	}
	size := len(l.GetData())
	rest = protowire.AppendTag(rest, dataField, protowire.BytesType)
	rest = protowire.AppendVarint(rest, uint64(size))
	head := protowire.AppendTag(nil, logAppendField, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(len(rest)+size))
	return mem.BufferSlice{mem.SliceBuffer(append(head, rest...)), lent(l.GetData())}, nil
}

// Unmarshal makes a message of what came. Output is copied once, to where it stays.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*agentv1.AgentMessage)
	if !ok || data.Len() < leastBulk {
		return c.CodecV2.Unmarshal(data, v)
	}
	rest, at, ok := splitOutput(data)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	var l agentv1.LogAppend
	if err := proto.Unmarshal(rest, &l); err != nil {
		return err
	}
	l.Data = OutputBuffer(data.Len() - at)
	for n, b := 0, data; len(b) > 0; b = b[1:] {
		raw := b[0].ReadOnlyData()
		skip := min(at, len(raw))
		n += copy(l.Data[n:], raw[skip:])
		at -= skip
	}
	m.Reset()
	m.Body = &agentv1.AgentMessage_LogAppend{LogAppend: &l}
	return nil
}

// splitOutput finds out where output begins that goes on to the end of a message, and
// returns all other fields of its LogAppend. It is false for what has another form than
// Marshal gives it.
func splitOutput(data mem.BufferSlice) (rest []byte, at int, ok bool) {
	head := data[0].ReadOnlyData()
	number, kind, n := protowire.ConsumeTag(head)
	if n < 0 || number != logAppendField || kind != protowire.BytesType {
		return nil, 0, false
	}
	begin, ok := spansRest(head, n, data.Len())
	if !ok {
		return nil, 0, false
	}
	for at = begin; ; {
		number, kind, n := protowire.ConsumeTag(head[at:])
		if n < 0 {
			return nil, 0, false
		}
		if number == dataField && kind == protowire.BytesType {
			rest = head[begin:at]
			at, ok = spansRest(head, at+n, data.Len())
			return rest, at, ok
		}
		m := protowire.ConsumeFieldValue(number, kind, head[at+n:])
		if m < 0 {
			return nil, 0, false
		}
		at += n + m
	}
}

// spansRest tells whether a field whose length is at n is the last of so many bytes, and
// where its value begins.
func spansRest(head []byte, n, size int) (begin int, ok bool) {
	length, m := protowire.ConsumeVarint(head[n:])
	if m < 0 {
		return 0, false
	}
	begin = n + m
	return begin, begin <= size && length == uint64(size-begin)
}

// outputCap is the capacity of a buffer for a large chunk. Nobody else's is that odd, and so
// tells them from others.
const outputCap = MaxLogChunk + 1

// outputs are buffers for the largest chunks. Without them a flood is a flood of garbage.
var outputs = sync.Pool{New: func() any { b := make([]byte, outputCap); return &b }}

// OutputBuffer returns a buffer for output of that size, in which there may be anything. It
// is for one message: when that is sent, others get it. One that would mostly be empty is
// not worth to be kept.
func OutputBuffer(size int) []byte {
	if size < MaxLogChunk/2 || size > MaxLogChunk {
		return make([]byte, size)
	}
	return (*outputs.Get().(*[]byte))[:size]
}

// ReuseOutput gives back the output of a message that came. Nobody may have it any more.
func ReuseOutput(data []byte) {
	if cap(data) == outputCap {
		outputs.Put(&data)
	}
}

// lent is output while gRPC has it, which may be longer than the call that sends it.
func lent(data []byte) mem.Buffer {
	if cap(data) != outputCap {
		return mem.SliceBuffer(data)
	}
	return mem.NewBuffer(&data, givenBack{})
}

// givenBack takes buffers of outputs. It is asked for none.
type givenBack struct{ mem.NopBufferPool }

func (givenBack) Put(data *[]byte) { ReuseOutput(*data) }
