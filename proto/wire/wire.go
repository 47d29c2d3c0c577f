// Package wire is what both ends of a connection must agree on: gRPC settings,
// size limits, the timing of a session and the revisions of its protocol.
//
// Settings that only work in pairs live here once. A client that pings more
// often than its server allows is hung up on; a log chunk larger than the
// receiver takes ends the stream. So every server and every client of ours is
// made with [ServerOptions] and [DialOptions], and nobody sets these by hand.
//
// It opens no connection, starts no goroutine and knows no credentials: those
// are added by whoever dials or listens.
package wire

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
)

// HTTP/2 keepalive. It works per hop: behind a load balancer it watches only
// the connection to the load balancer. What watches a session end to end is the
// ping inside its stream, see [PingInterval].
const (
	// KeepaliveTime is how long either end waits on a silent connection before
	// it sends an HTTP/2 PING.
	KeepaliveTime = 20 * time.Second
	// KeepaliveTimeout is how long it then waits for the answer. A connection
	// that went dead without a word is thus noticed within the sum of both.
	KeepaliveTimeout = 10 * time.Second
	// keepaliveMinTime is how often a server lets its clients ping. It has to be
	// well under KeepaliveTime: a client that pings sooner is hung up on.
	keepaliveMinTime = 10 * time.Second
)

// Sizes, in bytes.
const (
	// MaxMessage is the largest message that a server takes, on the API and in a
	// session alike: one gRPC server serves both and knows one limit. A larger
	// one fails its call with ResourceExhausted.
	MaxMessage = 1 << 20
	// MaxResponse is the largest message that a client takes. It is also the
	// limit that grpcurl and other people's clients have by default, so a list
	// has to end its page before it grows larger.
	MaxResponse = 4 << 20
	// MaxDefinition is the largest definition of a job. It leaves room in
	// MaxMessage for the run around it, so that what can be stored can be sent
	// to a worker.
	MaxDefinition = MaxMessage / 2
	// LogChunk is the most output that one log message carries on a line of which nothing
	// is known. Small, so that a kill never waits for long behind a chunk on a slow one.
	LogChunk = 16 << 10
	// MaxLogChunk is the most that one carries on any line, see [ChunkFor].
	MaxLogChunk = 128 << 10
	// LogCredit is how much output a worker may send before the first
	// acknowledgement tells it to go on.
	LogCredit = 128 << 10

	// Flow control windows. Setting them turns off gRPC's own estimate, which
	// would let megabytes of log pile up in front of a control message.
	streamWindow = 256 << 10
	connWindow   = 512 << 10
	// clientBuffer is how much a client hands to the kernel at once, at most, and
	// serverBuffer how much a server takes from it. A client holds it only while it does, and
	// a server, of TCP without TLS, only while there is something to take.
	clientBuffer = 128 << 10
	serverBuffer = 128 << 10
	// maxHeaders bounds the headers of one call; gRPC's own limit is 16 MiB,
	// which a server would hold for anybody who connects.
	maxHeaders = 64 << 10
)

const (
	// chunksInCredit is in how many chunks a worker's credit goes at least, so that a chunk
	// takes little of the time that all of it does.
	chunksInCredit = 8
	// smallCredit is the most that gateways granted which take no chunk above LogChunk.
	smallCredit = 512 << 10
)

// ChunkFor returns how much output one log message may carry while a worker may have so
// much on its way: credit grows with the rate of the line, and a few large messages cost
// both ends less than many small ones.
func ChunkFor(credit int64) int {
	if credit <= smallCredit {
		return LogChunk
	}
	return int(min(credit/chunksInCredit, MaxLogChunk))
}

// How fast a client redials a server, and how long either end lets the other
// take to shake hands.
const (
	dialBaseDelay    = 500 * time.Millisecond
	dialMaxDelay     = 5 * time.Second
	handshakeTimeout = 20 * time.Second
)

// ServerOptions returns the options that every gRPC server of ours is made
// with. The caller adds credentials and interceptors.
//
// Two limits are left alone on purpose. There is no maximum connection age: a
// session replaces its stream itself, without a gap (see [StreamLife]). And
// there is no maximum of streams per connection: a load balancer may carry all
// its workers over one.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time:    KeepaliveTime,
			Timeout: KeepaliveTimeout,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             keepaliveMinTime,
			PermitWithoutStream: true,
		}),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connWindow),
		grpc.MaxRecvMsgSize(MaxMessage),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.ReadBufferSize(serverBuffer),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.ForceServerCodecV2(newCodec()),
	}
}

// DialOptions returns the options that every gRPC client of ours is made with.
// The caller adds credentials.
//
// There is no dialer among them and there must be none in production: gRPC's
// own honours HTTPS_PROXY. A service config from DNS is ignored, since whoever
// can write a TXT record must not steer how workers retry and balance.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:                KeepaliveTime,
			Timeout:             KeepaliveTimeout,
			PermitWithoutStream: true,
		}),
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithWriteBufferSize(clientBuffer),
		grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(MaxResponse),
			grpc.MaxCallSendMsgSize(MaxMessage),
		),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay:  dialBaseDelay,
				Multiplier: 2,
				Jitter:     0.2,
				MaxDelay:   dialMaxDelay,
			},
			MinConnectTimeout: handshakeTimeout,
		}),
		// A connection that is not used for long is kept: keepalive sees whether it is still
		// one, and to take it down and make it anew would hold up whoever calls meanwhile.
		grpc.WithIdleTimeout(0),
		grpc.WithDisableServiceConfig(),
	}
}

// SessionOptions returns the options of the call that opens a session: the
// worker takes no larger message than the gateway does.
func SessionOptions() []grpc.CallOption {
	return []grpc.CallOption{grpc.MaxCallRecvMsgSize(MaxMessage), grpc.ForceCodecV2(newCodec())}
}
