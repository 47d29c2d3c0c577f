package measure

// Search looks for the largest load that is carried. It tries short runs until it knows
// that within a twentieth, and confirms it with one at full length, or, when that fails,
// with a smaller one. Call [Search.Next], try that, [Search.Tell] how it went, and so on.
type Search struct {
	next      int
	low, high int // carried, and not carried; 0: none yet
	full      bool
	confirmed int
	over      bool
	tries     int
}

// mostTries bounds a search, and mostLoad what it tries.
const (
	mostTries = 16
	mostLoad  = 1_000_000
)

// NewSearch begins with a first guess.
func NewSearch(guess int) *Search { return &Search{next: max(1, guess)} }

// Next is the load to try next, and whether at full length. It is over when ok is
// false.
func (s *Search) Next() (load int, full, ok bool) { return s.next, s.full, !s.over }

// Found is the largest load that was carried at full length; 0 if none.
func (s *Search) Found() int { return s.confirmed }

// Tell says whether the load that [Search.Next] named was carried.
func (s *Search) Tell(carried bool) {
	s.tries++
	switch {
	case s.full && carried:
		s.confirmed, s.over = s.next, true
		return
	case carried:
		s.low = s.next
	default:
		s.high = s.next
	}
	s.over = s.tries >= mostTries
	switch {
	case s.full: // what a short run carried was too much in the long one
		s.next = s.next * 19 / 20
		s.over = s.over || s.next == 0
	case s.low == 0:
		s.next /= 2
		s.over = s.over || s.next == 0
	case s.high == 0:
		s.next = min(s.next*5/4+1, mostLoad)
	case s.high-s.low <= max(1, s.low/20):
		s.next, s.full = s.low, true
	default:
		s.next = (s.low + s.high) / 2
	}
}
