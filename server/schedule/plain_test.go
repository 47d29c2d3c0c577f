package schedule_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/schedd/schedd/server/schedule"
)

// A field that is one number, or a star, means the same as when it is written as a range
// or with a step, which takes another way through the code.
func TestPlainFields(t *testing.T) {
	limits := [6][2]int{{0, 59}, {0, 59}, {0, 23}, {1, 31}, {1, 12}, {0, 7}}
	start := date(2026, 6, 1)
	same := func(place int, plain, long string) {
		t.Helper()
		times := func(field string) (list []string) {
			expr := strings.Split("0 0 0 1 1 *", " ")
			for i := place + 1; i < 5; i++ {
				expr[i] = "*" // so that it comes soon
			}
			expr[place] = field
			c := cronTrigger(t, strings.Join(expr, " "), "", schedule.GapRunAfter, schedule.OverlapFirst)
			at := start
			for range 5 {
				at = c.Next(at)
				list = append(list, at.String())
			}
			return list
		}
		if a, b := times(plain), times(long); fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("field %d: %q comes at %v, and %q at %v", place, plain, a, long, b)
		}
	}
	for place, l := range limits {
		same(place, "*", "*/1")
		same(place, "?", "*/1")
		for n := l[0]; n <= l[1]; n++ {
			same(place, fmt.Sprint(n), fmt.Sprintf("%d-%d", n, n))
			if place == 5 && n == 7 {
				continue // nobody writes Sunday as 07
			}
			same(place, fmt.Sprintf("%02d", n), fmt.Sprintf("%d-%d", n, n))
		}
	}
}
