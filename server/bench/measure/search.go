package measure

// Search looks for the largest load that is carried. It tries short runs, by half as much
// more or by half less, until it knows that within a twentieth, or has had enough of them. It
// confirms it with one at full length, or, when that fails, with smaller and smaller loads.
// Call [Search.Next], try that, [Search.Tell] how it went, and so on.
type Search struct {
	next      int
	low, high int // carried, and not carried; 0: none yet
	short     int // how many short runs there may still be
	long      int // and how many at full length
	full      bool
	step      int // by how many twentieths less is tried when a long run fails
	confirmed int
}

// mostLoad is the most that is ever tried.
const mostLoad = 1_000_000

// NewSearch begins with a first guess. There are at most so many short runs, and so many
// long ones.
func NewSearch(guess, short, long int) *Search {
	return &Search{next: max(1, guess), short: short, long: long, step: 1}
}

// Next is the load to try next, and whether at full length. It is over when ok is
// false.
func (s *Search) Next() (load int, full, ok bool) {
	return s.next, s.full, s.next > 0 && s.confirmed == 0 && s.long > 0
}

// Found is the largest load that was carried at full length; 0 if none.
func (s *Search) Found() int { return s.confirmed }

// Tell says whether the load that [Search.Next] named was carried.
func (s *Search) Tell(carried bool) {
	switch {
	case s.full && carried:
		s.confirmed = s.next
	case s.full: // what a short run carried was too much for a long one
		s.long--
		s.next = s.next * (20 - min(s.step, 10)) / 20
		s.step *= 2
	case carried:
		s.short--
		s.low = s.next
		s.narrow()
	default:
		s.short--
		s.high = s.next
		s.narrow()
	}
}

// narrow chooses what to try after a short run.
func (s *Search) narrow() {
	enough := s.high > 0 && s.low > 0 && s.high-s.low <= max(1, s.low/20)
	switch {
	case s.low > 0 && (enough || s.short <= 0):
		s.next, s.full = s.low, true
	case s.low == 0:
		s.next /= 2
		s.full = s.short <= 0
	case s.high == 0:
		s.next = min(s.next*3/2+1, mostLoad)
	default:
		s.next = (s.low + s.high) / 2
	}
}
