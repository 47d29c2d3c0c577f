package runlog

import "hash/crc32"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC-32C that [Store.Append] expects of its data.
func Checksum(data []byte) uint32 { return crc32.Checksum(data, castagnoli) }

// maxPieces is in how many frames the most goes that one [Store.Append] takes.
const maxPieces = MaxAppend / maxFrame

// sums are the checksums of the pieces of data that become frames.
type sums [maxPieces]uint32

// sumPieces returns these, and that of all data. Each byte is read once: to read them takes
// a good part of the processor time that a flood of output does.
func sumPieces(data []byte) (each sums, all uint32) {
	for i := 0; len(data) > 0; i++ {
		piece := data[:min(len(data), maxFrame)]
		each[i] = Checksum(piece)
		all = joined(all, each[i], len(piece))
		data = data[len(piece):]
	}
	return each, all
}

// joined returns the checksum of what has the checksum a, followed by n bytes that have the
// checksum b. A checksum is the rest of a division of polynomials over GF(2), so the first
// part counts x^8n times.
func joined(a, b uint32, n int) uint32 {
	for bit := range powers {
		if n>>bit&1 != 0 {
			a = times(powers[bit], a)
		}
	}
	return a ^ b
}

// powers are x^8, x^16, x^32 and so on: the one at i is what 1<<i bytes count.
var powers = func() (all [21]uint32) { // MaxAppend, and one more bit
	all[0] = 1 << (31 - 8) // the highest bit is x^0
	for i := 1; i < len(all); i++ {
		all[i] = times(all[i-1], all[i-1])
	}
	return all
}()

// times multiplies polynomials, modulo that of CRC-32C.
func times(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		if a>>31 != 0 {
			product ^= b
		}
		carry := b & 1
		b = b>>1 ^ carry*crc32.Castagnoli
	}
	return product
}
