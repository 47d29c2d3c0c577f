package clusternet

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
)

// keySize is the size of a cluster key, in bytes.
const keySize = 32

// ParseKey returns the key that the content of a key file says: 32 bytes in
// base64, with white space around them or not, as "schedd keygen" prints them.
// Errors say what to do, and nothing of the key.
func ParseKey(text []byte) ([]byte, error) {
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return nil, errors.New(`the cluster key is empty: make one with "schedd keygen"`)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil {
		return nil, fmt.Errorf(`the cluster key is not one line of base64 (%w): give what "schedd keygen" printed, as it is`, err)
	}
	if len(key) != keySize {
		return nil, fmt.Errorf(`the cluster key has %d bytes and must have %d: give what "schedd keygen" printed, all of it`, len(key), keySize)
	}
	return key, nil
}
