package copier

import "testing"

// The digest is what a copy is verified by of which nobody holds the source any more.
func TestADiskOfManyTebibytesHasADigest(t *testing.T) {
	whole := newSums(9<<40, chunkSize)
	empty := whole.Digest()
	last := span{off: 9<<40 - chunkSize, end: 9 << 40}
	data := make([]byte, chunkSize)
	data[chunkSize-1] = 1
	whole.set(last, data)
	if digest := whole.Digest(); digest == "" || empty == "" || digest == empty || !whole.has(last, data) {
		t.Errorf("the digests are %q empty and %q with data", empty, digest)
	}
}
