package printable

import (
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// JSON returns a writer of JSON in which every character of a string that is not plain is
// escaped, and the value of the string stays the same. Encoders escape only those below U+0020.
// Each call of Write must have whole characters, as a value of JSON does.
func JSON(w io.Writer) io.Writer { return jsonWriter{w} }

type jsonWriter struct{ w io.Writer }

func (j jsonWriter) Write(p []byte) (int, error) {
	if _, err := j.w.Write(escaped(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// escaped returns JSON with \uXXXX (RFC 8259, section 7) for what is not plain. Outside of its
// strings JSON is ASCII, and within them it has no control character below U+0020.
func escaped(p []byte) []byte {
	out := make([]byte, 0, len(p))
	for i := 0; i < len(p); {
		r, size := utf8.DecodeRune(p[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			out = append(out, `\ufffd`...)
		case r == '\n', isPlain(r):
			out = append(out, p[i:i+size]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		i += size
	}
	return out
}
