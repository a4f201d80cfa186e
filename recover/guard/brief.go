package guard

import (
	"fmt"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// How much of what others can make long is in a status, in bytes as they
// are encoded. What is cut is counted.
const (
	problemBytes  = 1 << 10  // of one
	problemsBytes = 16 << 10 // of a list
	pathsBytes    = 4 << 10  // of one incident
	instanceBytes = 60 << 10 // of one instance of the report
)

// The same in numbers, of what has no texts of any length.
const (
	foreignFiles = 500
	mostListed   = 20 // disks whose next start differs, and directories, of one instance that is cut
)

// brief cuts a text, at a whole character.
func brief(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}

// briefEncoded cuts a text so that it takes no more bytes when it is encoded.
func briefEncoded(text string, most int) string {
	cut := brief(text, most)
	for n := most; len(encodePart(cut)) > most && n > 0; {
		n = n * 3 / 4
		cut = brief(text, n)
	}
	return cut
}

// fitting returns how many of the texts fit into that many bytes, encoded; of one or more at
// least one.
func fitting(texts []string, most int) int {
	for n, text := range texts {
		if most -= len(encodePart(text)); most < 0 {
			return max(n, 1)
		}
	}
	return len(texts)
}

// briefProblems cuts a list of problems.
func briefProblems(texts []string) []string {
	var cut []string
	for _, text := range texts {
		cut = append(cut, briefEncoded(text, problemBytes))
	}
	if n := fitting(cut, problemsBytes); n < len(cut) {
		cut = append(cut[:n:n], fmt.Sprintf("and %d more problems", len(cut)-n))
	}
	return cut
}

// briefInstance leaves so much out of an instance that it fits into one message: files that no
// definition names are the last of them.
func briefInstance(i recover.Instance) recover.Instance {
	if len(encodePart(i)) <= instanceBytes {
		return i
	}
	i.Reasons, i.Possible = briefProblems(i.Reasons), briefProblems(i.Possible)
	i.NextStart, i.Directories = i.NextStart[:min(len(i.NextStart), mostListed)], i.Directories[:min(len(i.Directories), mostListed)]
	files, superseded := i.Files, i.Superseded
	for len(encodePart(i)) > instanceBytes && len(i.Files)+len(i.Superseded) > 0 {
		i.Files, i.Superseded = i.Files[:len(i.Files)/2], i.Superseded[:len(i.Superseded)/2]
	}
	if more := len(files) + len(superseded) - len(i.Files) - len(i.Superseded); more > 0 {
		i.Reasons = append(i.Reasons[:len(i.Reasons):len(i.Reasons)], fmt.Sprintf("and %d more files, which os-rescue scan lists", more))
	}
	return i
}
