package schedule

import "math/bits"

// A hash spreads triggers. It is part of what definitions mean: change it and
// every H field and every jitter in the field changes with it. FNV-1a takes the
// text in; the finalizer of splitmix64 makes all bits depend on all bits, which
// FNV alone does not for names that differ in the last letter.
type hash uint64

func newHash(s string) hash { return hash(14695981039346656037).text(s) }

func (h hash) text(s string) hash {
	for i := range len(s) {
		h = (h ^ hash(s[i])) * 1099511628211
	}
	return (h ^ 0xff) * 1099511628211 // so that "ab"+"c" is not "a"+"bc"
}

func (h hash) number(n uint64) hash { return hash(mix(uint64(h) ^ mix(n))) }

// below returns a value from 0 to n-1, each as likely as the others.
func (h hash) below(n uint64) uint64 {
	hi, _ := bits.Mul64(mix(uint64(h)), n)
	return hi
}

func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
