package api

import (
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/api/validate/content"

	"github.com/schedd/schedd/raftstore/state"
)

// Limits of what is given in words.
const (
	maxLabels    = 64
	maxNote      = 1024
	maxRequestID = 128
	maxID        = 256 // of a worker
	maxHost      = 253 // a name of the DNS
	maxAddress   = maxHost + len(":65535")
)

// DefaultNamespace is the one of a job that names none.
const DefaultNamespace = "default"

var nameSyntax = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// name checks a name, which is required.
func (c scope) name(s string) string {
	switch {
	case s == "":
		c.failf("is required")
	case !nameSyntax.MatchString(s):
		c.failf("%s is not a name: 1 to 63 of a-z, 0-9, '.', '_' and '-', the first a letter or a digit", quote(s))
	}
	return s
}

// jobKey checks the name of a job.
func (c scope) jobKey(namespace, name string) state.JobKey {
	k := state.JobKey{Namespace: DefaultNamespace, Name: c.in("name").name(name)}
	if namespace != "" {
		k.Namespace = c.in("namespace").name(namespace)
	}
	return k
}

// runID checks the id of a run, which is required.
func (c scope) runID(s string) state.RunID {
	if s == "" {
		c.failf("is required: the id of a run")
		return state.RunID{}
	}
	id, err := state.ParseRunID(s)
	if err != nil {
		c.failf("%s is not the id of a run: it has 26 characters of a-z and 2-7", quote(s))
	}
	return id
}

// workerID checks the id of a worker, which is required.
func (c scope) workerID(s string) state.WorkerID {
	if s == "" {
		c.failf("is required: the id of a worker")
	}
	return state.WorkerID(c.text(s, maxID))
}

var (
	nodeIDSyntax = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$`)
	hostSyntax   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)
)

// nodeID checks the node id of a primary, which is required.
func (c scope) nodeID(s string) string {
	switch {
	case s == "":
		c.failf("is required: the node id of a primary")
	case !nodeIDSyntax.MatchString(s):
		c.failf("%s is not the node id of a primary: up to 253 letters, digits, dots, dashes and underscores", quote(s))
	}
	return s
}

// address checks a host and a port that others can dial, which is required.
func (c scope) address(s string) string {
	host, port, err := net.SplitHostPort(s)
	number, noNumber := strconv.ParseUint(port, 10, 16)
	ip, noIP := netip.ParseAddr(host)
	switch {
	case s == "":
		c.failf("is required, as host:port")
	case err != nil || noNumber != nil || number == 0 || noIP != nil && (!hostSyntax.MatchString(host) || len(host) > maxHost):
		c.failf("%s is not an address: give it as host:port", quote(s))
	case noIP == nil && ip.IsUnspecified():
		c.failf("%s can't be dialled by others: name the address that they reach it at", quote(s))
	}
	return s
}

// text checks the length of a text, in bytes, and that it has no NUL.
func (c scope) text(s string, most int) string {
	switch {
	case len(s) > most:
		c.failf("has %d bytes, of %d allowed", len(s), most)
	case strings.ContainsRune(s, 0):
		c.failf("must not contain the character NUL")
	}
	return s
}

// size checks a length in bytes.
func (c scope) size(n, most int) {
	if n > most {
		c.failf("has %d bytes, of %d allowed", n, most)
	}
}

// labels checks labels.
func (c scope) labels(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	if len(m) > maxLabels {
		c.failf("has %d labels, of %d allowed", len(m), maxLabels)
		return nil
	}
	for _, k := range sortedKeys(m) {
		c.key(k).labelKey(k)
		if errs := content.IsLabelValue(m[k]); len(errs) > 0 {
			c.key(k).failf("the value %s is not one of a label: %s", quote(m[k]), strings.Join(errs, "; "))
		}
	}
	return m
}

// labelKey checks the key of a label.
func (c scope) labelKey(k string) {
	if errs := content.IsLabelKey(k); len(errs) > 0 {
		c.failf("%s is not the key of a label: %s", quote(k), strings.Join(errs, "; "))
	}
}

// maxDuration bounds the durations that nothing else bounds: longer ones are
// mistakes, and the sum of any few of them still is a [time.Duration].
const maxDuration = 10 * 366 * 24 * time.Hour

// span is the least and the most that a duration may be, and what it is when
// nobody says.
type span struct{ least, most, otherwise time.Duration }

// duration checks a duration.
func (c scope) duration(d *durationpb.Duration, allowed span) time.Duration {
	if d == nil {
		return allowed.otherwise
	}
	if !d.IsValid() {
		c.failf("is not a valid duration: seconds and nanos need the same sign, and nanos less than a second")
		return allowed.otherwise
	}
	v := d.AsDuration()
	if v < allowed.least || v > allowed.most {
		c.failf("is %v; allowed are %v to %v", v, allowed.least, allowed.most)
		return allowed.otherwise
	}
	return v
}

// The instants that a definition may name: what can be stored.
var (
	firstInstant = time.Unix(1, 0).UTC()
	lastInstant  = time.Date(2261, 12, 31, 23, 59, 59, 999999999, time.UTC)
)

// instant checks a point in time; zero when none is given.
func (c scope) instant(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	if !t.IsValid() {
		c.failf("is not a valid timestamp")
		return time.Time{}
	}
	v := t.AsTime()
	if v.Before(firstInstant) || v.After(lastInstant) {
		c.failf("is %s; allowed are instants of the years 1970 to 2261", v.Format(time.RFC3339))
		return time.Time{}
	}
	return v
}

// number checks a number that is otherwise when it is 0.
func number[N int32 | uint32 | int64](c scope, n, least, most, otherwise N) N {
	if n == 0 {
		return otherwise
	}
	if n < least || n > most {
		c.failf("is %d; allowed are %d to %d", n, least, most)
		return otherwise
	}
	return n
}

// protoEnum is an enumeration of the API.
type protoEnum interface {
	~int32
	String() string
	Descriptor() protoreflect.EnumDescriptor
}

// allowedNames returns the names of an enumeration's values, without
// UNSPECIFIED and those that are left out.
func allowedNames[P protoEnum](without ...P) []string {
	var zero P
	values := zero.Descriptor().Values()
	var names []string
next:
	for i := range values.Len() {
		n := P(values.Get(i).Number())
		for _, w := range without {
			if n == w {
				continue next
			}
		}
		if n != 0 {
			names = append(names, string(values.Get(i).Name()))
		}
	}
	return names
}
