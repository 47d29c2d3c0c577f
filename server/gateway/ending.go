package gateway

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// ending is why a session is over.
type ending struct {
	code   codes.Code // of the stream; a load balancer may replace it by its own
	reason string
	word   *agentv1.GatewayMessage // what the worker is told in the stream before; may be nil
}

// status returns what the stream ends with.
func (e *ending) status() error {
	if e.code == codes.OK {
		return nil
	}
	return status.Error(e.code, shorten(e.reason, maxStatus))
}

// reject ends a session with words of authority. retryAfter 0 leaves it to the
// worker when to come back.
func reject(code codes.Code, permanent bool, retryAfter time.Duration, reason string) *ending {
	reason = sentence(reason)
	r := &agentv1.Reject{Reason: reason, Permanent: permanent}
	if retryAfter > 0 {
		r.RetryAfter = durationpb.New(retryAfter)
	}
	return &ending{code: code, reason: reason, word: &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Reject{Reject: r}}}
}

// move ends a session that is to go on through another connection.
func move(code codes.Code, reason string) *ending {
	reason = sentence(reason)
	return &ending{code: code, reason: reason, word: &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Move{
		Move: &agentv1.Move{Reason: reason},
	}}}
}

// afterViolation is how long a worker that broke the protocol stays away: it
// would do it again, and all workers of a bad version would do it at once.
const afterViolation = 30 * time.Second

// violation ends the session of a worker that broke the protocol.
func violation(code codes.Code, format string, args ...any) *ending {
	return reject(code, false, afterViolation, "the worker broke the session protocol: "+fmt.Sprintf(format, args...))
}

// silent ends a stream without a word in it: nobody would hear it.
func silent(code codes.Code, format string, args ...any) *ending {
	return &ending{code: code, reason: sentence(fmt.Sprintf(format, args...))}
}

// How long a reason may be, in bytes: in a message, and in the status of a stream,
// which is a header, and load balancers drop streams with large ones.
const (
	maxSentence = 4000
	maxStatus   = 500
)

// sentence makes s fit to be sent: short, and UTF-8, which a string on the wire
// has to be. Reasons quote what workers and file systems say.
func sentence(s string) string { return shorten(s, maxSentence) }

func shorten(s string, size int) string {
	if len(s) > size {
		s = s[:size] + "…"
	}
	return strings.ToValidUTF8(s, "")
}
