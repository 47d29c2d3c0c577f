package api

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
)

// Statuses travel in headers, which load balancers bound, some to 8 KiB in
// all, and base64 and the message come on top.
const (
	maxViolations     = 3 << 10 // bytes of fields and descriptions
	maxStatusMessage  = 512
	maxOneDescription = 400
)

// invalidError is all that is wrong with a request.
type invalidError struct {
	violations []*errdetails.BadRequest_FieldViolation
	more       int  // violations that did not fit
	size       int  // of violations
	unserved   bool // nothing is wrong but that it asks for what is not served yet
}

// Error names every wrong field.
func (e *invalidError) Error() string {
	var all []string
	for _, v := range e.violations {
		all = append(all, v.GetField()+": "+v.GetDescription())
	}
	if n := len(all) + e.more; n > 1 {
		return clip(fmt.Sprintf("%d fields are wrong: %s", n, strings.Join(all, "; ")), maxStatusMessage)
	}
	return clip(strings.Join(all, ""), maxStatusMessage)
}

func (e *invalidError) status() *status.Status {
	code := codes.InvalidArgument
	if e.unserved {
		code = codes.Unimplemented
	}
	st := status.New(code, e.Error())
	violations := e.violations
	if e.more > 0 {
		violations = append(slices.Clip(violations), &errdetails.BadRequest_FieldViolation{
			Description: fmt.Sprintf("and %d more fields are wrong, which did not fit here", e.more),
		})
	}
	detailed, err := st.WithDetails(protoadapt.MessageV1Of(&errdetails.BadRequest{FieldViolations: violations}))
	if err != nil {
		return st // the message says it too
	}
	return detailed
}

// problems collects what is wrong with a request.
type problems struct {
	found    invalidError
	fields   map[string]bool // that have one: the first says enough
	unserved int
}

// request returns the scope of a whole request.
func request() scope { return scope{problems: &problems{fields: map[string]bool{}}} }

// err returns an error that names all that was found; nil when nothing was.
func (p *problems) err() error {
	n := len(p.fields)
	if n == 0 {
		return nil
	}
	p.found.unserved = n == p.unserved
	return &p.found
}

// scope is a field of a request: where in it, and where to tell what is wrong.
type scope struct {
	*problems
	path string
}

// in returns the scope of a field.
func (c scope) in(field string) scope {
	if c.path != "" {
		field = "." + field
	}
	return scope{c.problems, c.path + field}
}

// at returns the scope of an element of a list.
func (c scope) at(i int) scope { return scope{c.problems, fmt.Sprintf("%s[%d]", c.path, i)} }

// key returns the scope of an element of a map.
func (c scope) key(k string) scope {
	return scope{c.problems, fmt.Sprintf("%s[%q]", c.path, clip(k, 64))}
}

// failf says what is wrong with the field, and what is allowed.
func (c scope) failf(format string, args ...any) {
	if c.fields[c.path] {
		return
	}
	c.fields[c.path] = true
	v := &errdetails.BadRequest_FieldViolation{
		Field: clip(c.path, 200), Description: clip(fmt.Sprintf(format, args...), maxOneDescription),
	}
	size := len(v.GetField()) + len(v.GetDescription())
	if c.found.size+size > maxViolations {
		c.found.more++
		return
	}
	c.found.size += size
	c.found.violations = append(c.found.violations, v)
}

// unservedf says that the field asks for what is not served yet.
func (c scope) unservedf(format string, args ...any) {
	if !c.fields[c.path] {
		c.unserved++
	}
	c.failf(format, args...)
}

// ok reports whether nothing was found wrong with the field or below it.
func (c scope) ok() bool {
	for f := range c.fields {
		if rest, below := strings.CutPrefix(f, c.path); below && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return false
		}
	}
	return true
}

// clip shortens text to at most n bytes, at the border of a character.
func clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	s = s[:n-len("…")]
	for len(s) > 0 {
		if r, size := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || size > 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return s + "…"
}

// quote shows a value that somebody sent.
func quote(s string) string { return fmt.Sprintf("%q", clip(s, 60)) }
