package settings

import "strings"

// didYouMean returns a question to append to an error about an unknown name, or
// nothing when no known name is near.
func didYouMean(prefix, name string, known []string) string {
	best, nearest := "", len(name)/3+1
	for _, k := range known {
		if d := distance(fold(name), fold(k)); d < nearest || d == nearest && best == "" {
			best, nearest = k, d
		}
	}
	if best == "" {
		return ""
	}
	return ", did you mean " + prefix + best + "?"
}

// fold removes differences that a name in the right place would not have either.
func fold(name string) string {
	return strings.ReplaceAll(strings.ToLower(name), "-", "_")
}

// distance returns how many letters have to be put in, taken out or changed to
// make b out of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
