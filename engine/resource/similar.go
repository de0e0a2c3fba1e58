package resource

import (
	"maps"
	"slices"
)

// maxTypos is how many letters may differ between a key and the one that was meant.
const maxTypos = 2

// similar is the known key closest to an unknown one, or nothing.
func similar(key string, known fields) string {
	best, fewest := "", maxTypos+1
	for _, candidate := range slices.Sorted(maps.Keys(known)) {
		// Two letters of difference make another word of a short one.
		if n := distance(key, candidate); n < fewest && n < len(candidate)-1 {
			best, fewest = candidate, n
		}
	}
	return best
}

// distance counts the letters to add, drop or change between two words (Levenshtein), one row of the table at a time;
// far is enough to know beyond maxTypos.
func distance(a, b string) int {
	if max(len(a), len(b))-min(len(a), len(b)) > maxTypos {
		return maxTypos + 1
	}
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
