package wire

import (
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
// to buffer and from buffer to message. gRPC's clears a buffer of a megabyte for each
// message of more than 32 KiB, at both ends, which costs more than all else that is done
// with it. What goes over the line is the same: either end may be without it.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(grpcproto.Name)} }

// Marshal returns what goes over the line. It keeps the output, which nobody changes
// any more.
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
	return mem.BufferSlice{mem.SliceBuffer(append(head, rest...)), mem.SliceBuffer(l.GetData())}, nil
}

// Unmarshal makes a message of what came. Output is where it came to, and stays there.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*agentv1.AgentMessage)
	if !ok || data.Len() < leastBulk {
		return c.CodecV2.Unmarshal(data, v)
	}
	raw := data.Materialize()
	rest, output, ok := splitOutput(raw)
	if !ok {
		return proto.Unmarshal(raw, m)
	}
	var l agentv1.LogAppend
	if err := proto.Unmarshal(rest, &l); err != nil {
		return err
	}
	l.Data = output
	m.Reset()
	m.Body = &agentv1.AgentMessage_LogAppend{LogAppend: &l}
	return nil
}

// splitOutput parts a message that carries output, and nothing else, into output and all
// other fields of the LogAppend. It is false for what has another form.
func splitOutput(raw []byte) (rest, output []byte, ok bool) {
	number, kind, n := protowire.ConsumeTag(raw)
	if n < 0 || number != logAppendField || kind != protowire.BytesType {
		return nil, nil, false
	}
	body, m := protowire.ConsumeBytes(raw[n:])
	if m < 0 || n+m != len(raw) {
		return nil, nil, false
	}
	for len(body) > 0 {
		number, kind, n := protowire.ConsumeField(body)
		if n < 0 || number == dataField && (kind != protowire.BytesType || ok) {
			return nil, nil, false
		}
		if number == dataField {
			_, _, tag := protowire.ConsumeTag(body)
			output, _ = protowire.ConsumeBytes(body[tag:n])
			ok = true
		} else {
			rest = append(rest, body[:n]...)
		}
		body = body[n:]
	}
	return rest, output, ok
}
