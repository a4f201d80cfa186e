package oracle

import "fmt"

// A disk is so many chunks, each written as a whole with one byte's pattern.
const (
	chunks    = 16
	chunkSize = 64 << 10
	diskSize  = chunks * chunkSize
)

// content is what a guest must read from a disk: the pattern of each chunk.
type content [chunks]byte

// contentOf tells the content from a disk's bytes. A chunk that is not one pattern
// throughout is an error.
func contentOf(data []byte) (content, error) {
	var c content
	if len(data) != diskSize {
		return c, fmt.Errorf("%d bytes instead of %d", len(data), diskSize)
	}
	for n := range c {
		chunk := data[n*chunkSize : (n+1)*chunkSize]
		c[n] = chunk[0]
		for _, b := range chunk {
			if b != chunk[0] {
				return c, fmt.Errorf("chunk %d has both %#02x and %#02x", n, chunk[0], b)
			}
		}
	}
	return c, nil
}

// bytes returns the bytes of a disk's first n chunks.
func (c content) bytes(n int) []byte {
	data := make([]byte, 0, n*chunkSize)
	for _, pattern := range c[:n] {
		for range chunkSize {
			data = append(data, pattern)
		}
	}
	return data
}

// missing says what of the content is not in a disk's bytes; empty when all is.
func (c content) missing(data []byte) string {
	got, err := contentOf(data)
	if err != nil {
		return err.Error()
	}
	return got.diff(c)
}

// diff names the first chunk that is not as wanted; empty when all are.
func (c content) diff(want content) string {
	for n := range c {
		if c[n] != want[n] {
			return fmt.Sprintf("chunk %d is %#02x instead of %#02x", n, c[n], want[n])
		}
	}
	return ""
}
