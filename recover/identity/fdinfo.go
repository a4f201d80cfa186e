package identity

import (
	"errors"
	"strconv"
	"strings"
)

// OpenFlags returns the flags with which a descriptor was opened, from the text of its fdinfo, where the
// kernel prints them in octal (fs/proc/fd.c, seq_show).
func OpenFlags(fdinfo []byte) (int, error) {
	text, ok := fdinfoField(fdinfo, "flags:")
	if !ok {
		return 0, errors.New("fdinfo has no flags")
	}
	n, err := strconv.ParseUint(text, 8, 31)
	return int(n), err
}

// fdinfoField returns what stands behind a name in fdinfo; false when it has no such line.
func fdinfoField(fdinfo []byte, name string) (string, bool) {
	for line := range strings.Lines(string(fdinfo)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(rest), true
		}
	}
	return "", false
}
