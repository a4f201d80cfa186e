package recovertest

import "regexp"

// OldJournal makes of a journal's lines those of a release that wrote no checksums, so that a
// test can change them.
func OldJournal(lines []byte) []byte {
	return regexp.MustCompile(`,"crc32c":"[0-9a-f]{8}"}\n`).ReplaceAll(lines, []byte("}\n"))
}
