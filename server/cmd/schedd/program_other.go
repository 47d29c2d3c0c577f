//go:build !linux

package main

import "errors"

// programParts returns nothing: other systems do not tell.
func programParts() ([]part, error) { return nil, errors.ErrUnsupported }

// giveBack does nothing: there are no parts.
func (part) giveBack() {}
