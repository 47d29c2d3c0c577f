//go:build !linux

package runlog

import (
	"bytes"
	"os"
)

// writeParts writes parts, one after the other, at off of a file.
func writeParts(f *os.File, parts [][]byte, off int64) error {
	_, err := f.WriteAt(bytes.Join(parts, nil), off)
	return err
}
