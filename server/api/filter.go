package api

import (
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// maxFilter bounds a filter, in bytes.
const maxFilter = 4096

// field is one that lists can be filtered by.
type field[T any] struct {
	// any reports whether one of the field's values will do; most have one.
	any func(v T, does func(string) bool) bool
	// flag is set instead for one that is true or false.
	flag func(v T) bool
	// known is the values that it can have; nil: any.
	known []string
}

// one is a field with one value.
func one[T any](value func(T) string, known ...string) field[T] {
	return field[T]{any: func(v T, does func(string) bool) bool { return does(value(v)) }, known: known}
}

// flag is a field that is true or false.
func flag[T any](is func(T) bool) field[T] { return field[T]{flag: is} }

// filter reports whether a T is wanted; nil: all are.
type filter[T any] []func(T) bool

func (f filter[T]) matches(v T) bool {
	for _, ok := range f {
		if !ok(v) {
			return false
		}
	}
	return true
}

// labelsPrefix stands before the key of a label.
const labelsPrefix = "labels."

// readFilter reads a filter over the fields, and over the labels, if there are
// any (labelsOf is nil otherwise).
func readFilter[T any](c scope, text string, fields map[string]field[T], labelsOf func(T) map[string]string) filter[T] {
	c.size(len(text), maxFilter)
	if text == "" || !c.ok() {
		return nil
	}
	requirements, err := labels.ParseToRequirements(text)
	if err != nil {
		c.failf("can't be read: %v", err)
		return nil
	}
	var f filter[T]
	for _, r := range requirements {
		key, isLabel := strings.CutPrefix(r.Key(), labelsPrefix)
		fd, known := fields[r.Key()]
		switch {
		case known:
			f = append(f, fieldFilter(c, r, fd))
		case isLabel && labelsOf != nil:
			f = append(f, labelFilter(c, r, key, labelsOf))
		default:
			names := sortedKeys(fields)
			if labelsOf != nil {
				names = append(names, labelsPrefix+"KEY")
			}
			c.failf("%s is not a field to filter by; there are %s", quote(r.Key()), strings.Join(names, ", "))
		}
	}
	return f
}

func labelFilter[T any](c scope, r labels.Requirement, key string, labelsOf func(T) map[string]string) func(T) bool {
	bare, err := labels.NewRequirement(key, r.Operator(), r.ValuesUnsorted())
	if err != nil {
		c.failf("%s: %v", quote(r.Key()), err)
		return nil
	}
	return func(v T) bool { return bare.Matches(labels.Set(labelsOf(v))) }
}

func fieldFilter[T any](c scope, r labels.Requirement, f field[T]) func(T) bool {
	values := r.ValuesUnsorted()
	var not bool
	switch r.Operator() {
	case selection.In, selection.Equals, selection.DoubleEquals, selection.Exists:
	case selection.NotIn, selection.NotEquals, selection.DoesNotExist:
		not = true
	default:
		c.failf("%s can't be compared by size; use =, !=, in and notin", r.Key())
		return nil
	}
	exists := len(values) == 0
	known := f.known
	if f.flag != nil {
		known = []string{"true", "false"}
	}
	for _, v := range values {
		if len(known) > 0 && !slices.Contains(known, v) {
			c.failf("%s is not a value of %s; allowed are %s", quote(v), r.Key(), strings.Join(known, ", "))
		}
	}
	switch {
	case f.flag != nil && exists:
		return func(v T) bool { return f.flag(v) != not }
	case f.flag != nil:
		return func(v T) bool { return slices.Contains(values, strconv.FormatBool(f.flag(v))) != not }
	case exists:
		given := func(s string) bool { return s != "" }
		return func(v T) bool { return f.any(v, given) != not }
	}
	does := func(s string) bool { return slices.Contains(values, s) }
	return func(v T) bool { return f.any(v, does) != not }
}
