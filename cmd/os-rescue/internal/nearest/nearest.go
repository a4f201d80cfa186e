package nearest

import (
	"sort"
	"strings"
)

// Sort returns words in the order of their distance from word, the closest first, and
// equally close ones in alphabetical order. Upper and lower case count as equal. The
// given slice is not changed.
func Sort(word string, words []string) []string {
	sorted := append([]string(nil), words...)
	far := make(map[string]int, len(sorted))
	for _, w := range sorted {
		far[w] = distance(strings.ToLower(word), strings.ToLower(w))
	}
	sort.Slice(sorted, func(i, j int) bool {
		a, b := sorted[i], sorted[j]
		if far[a] != far[b] {
			return far[a] < far[b]
		}
		return a < b
	})
	return sorted
}

// distance is the Levenshtein distance of two words, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
