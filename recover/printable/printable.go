package printable

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text is text of the program's own making, which is shown as it is. What it contains of
// others' has been cleaned.
type Text string

// isPlain is true for a character that shows itself, and nothing else. Control (C0, DEL, C1),
// format (direction, zero width, tags), private and unassigned characters are not graphic
// (Unicode, chapter 4.5); fillers and variation selectors are, and show nothing.
func isPlain(r rune) bool {
	return unicode.IsGraphic(r) && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// Line returns s with a ? for every character that is not plain, and for every byte that is not
// UTF-8. A newline is not plain.
func Line(s string) string {
	return clean(s, func(string) int { return 0 })
}

// OneLine returns the lines of s, cleaned, as one line, with "; " between them.
func OneLine(s string) string {
	var lines []string
	for _, line := range strings.Split(s, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return Line(strings.Join(lines, "; "))
}

// Block returns text that is about to be written out: newlines and colours stay, everything
// else is as in Line. It is the last net, for text that passed no other door.
func Block(s string) string {
	return clean(s, func(rest string) int {
		if rest[0] == '\n' {
			return 1
		}
		return sgr(rest)
	})
}

// sgr returns the length of the colour at the beginning of s (ECMA-48, 8.3.117: select graphic
// rendition); 0 if there is none.
func sgr(s string) int {
	const begin = "\x1b["
	if !strings.HasPrefix(s, begin) {
		return 0
	}
	for i := len(begin); i < len(s); i++ {
		if s[i] == 'm' {
			return i + 1
		}
		if (s[i] < '0' || s[i] > '9') && s[i] != ';' {
			break
		}
	}
	return 0
}

// clean replaces what is not plain, but for the bytes that keep counts at the beginning of what
// is left.
func clean(s string, keep func(rest string) int) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		if n := keep(s[i:]); n > 0 {
			b.WriteString(s[i : i+n])
			i += n
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 || !isPlain(r) {
			r = '?'
		}
		b.WriteRune(r)
		i += size
	}
	return b.String()
}

// Sprintf is fmt.Sprintf, but for each argument that is no Text what it shows is cleaned as by
// Line. The format is the program's own.
func Sprintf(format string, args ...any) Text {
	if false {
		_ = fmt.Sprintf(format, args...) // so that go vet looks at the calls
	}
	cleaned := make([]any, len(args))
	for i, arg := range args {
		if cleaned[i] = arg; !isText(arg) {
			cleaned[i] = foreign{arg}
		}
	}
	return Text(fmt.Sprintf(format, cleaned...))
}

// Cell returns what a value shows in a column: a Text as it is, everything else cleaned.
func Cell(value any) Text { return Sprintf("%v", value) }

// Join is strings.Join for texts of the program's own.
func Join(texts []Text, separator Text) Text {
	var b strings.Builder
	for i, text := range texts {
		if i > 0 {
			b.WriteString(string(separator))
		}
		b.WriteString(string(text))
	}
	return Text(b.String())
}

func isText(value any) bool {
	_, ok := value.(Text)
	return ok
}

// foreign is a value of which everything that it shows is cleaned.
type foreign struct{ value any }

// Format is part of fmt.Formatter.
func (f foreign) Format(state fmt.State, verb rune) {
	_, _ = io.WriteString(state, Line(fmt.Sprintf(fmt.FormatString(state, verb), f.value)))
}
