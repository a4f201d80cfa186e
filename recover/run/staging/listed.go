package staging

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// mostNamed is how many files a sentence names. The nova user can make hundreds.
const mostNamed = 8

// listed names some files for an operator.
func listed(paths []string) string {
	if more := len(paths) - mostNamed; more > 0 {
		paths = append(paths[:mostNamed:mostNamed], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(paths, ", ")
}

// essentialFirst returns the files with those last that no definition names, so that a long
// list does not end before it comes to a disk.
func essentialFirst(files []recover.FilePlan) []recover.FilePlan {
	weight := func(f recover.FilePlan) int {
		if f.Role == recover.RoleOther {
			return 1
		}
		return 0
	}
	return slices.SortedStableFunc(slices.Values(files), func(a, b recover.FilePlan) int { return cmp.Compare(weight(a), weight(b)) })
}
