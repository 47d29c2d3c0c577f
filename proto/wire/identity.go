package wire

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"strings"
)

const (
	// NonceSize is how many bytes a worker is challenged with.
	NonceSize = 32

	// proofPrefix keeps a signature made for a session from being good for
	// anything else that the same key may sign one day.
	proofPrefix = "schedd agent session v1\n"

	// idChars is how many characters of the key's hash make a worker's id: 80
	// bits, so that nobody finds two keys with one id by chance or, for a given
	// one, by trying.
	idChars = 16
)

// WorkerID returns the id of the worker that holds the key: "w-" and the first
// 16 characters of the hash (SHA-256) of the public key in lower-case base32. It
// is all that a worker is known by: names and addresses are for people.
func WorkerID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	text := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:])
	return "w-" + strings.ToLower(text[:idChars])
}

// Proof returns what a worker signs to prove its key: this challenge, and the
// session's epoch, so that nobody on the way can raise it.
func Proof(nonce []byte, epoch uint64) []byte {
	text := append([]byte(proofPrefix), nonce...)
	return binary.BigEndian.AppendUint64(text, epoch)
}
