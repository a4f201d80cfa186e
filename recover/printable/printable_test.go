package printable

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// bad returns the first character of what was shown that must not be; 0 if there is none. It
// does not ask the code under test.
func bad(shown string) rune {
	for _, r := range shown {
		for _, span := range [][2]rune{
			{0, 0x1f}, {0x7f, 0x9f}, {0xad, 0xad}, {0x34f, 0x34f}, {0x61c, 0x61c}, {0x180b, 0x180f}, {0x200b, 0x200f}, {0x2028, 0x202e},
			{0x2060, 0x206f}, {0x3164, 0x3164}, {0xd800, 0xf8ff}, {0xfe00, 0xfe0f}, {0xfeff, 0xfeff}, {0xffa0, 0xffa0}, {0xfff0, 0xfffb},
			{0xe0000, 0x10ffff},
		} {
			if r >= span[0] && r <= span[1] {
				return r
			}
		}
	}
	if !utf8.ValidString(shown) {
		return utf8.RuneError
	}
	return 0
}

func TestForeignTextCannotRepaintTheTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain ünïcode 漢字 e\u0301": "plain ünïcode 漢字 e\u0301",
		"\x1b[31mred\x07":          "?[31mred?",
		"\x1b]0;title\x07":         "?]0;title?",
		"two\nlines\r\tx":          "two?lines??x",
		"right\u202eto\u200b":      "right?to?",
		"\u0085\u009b":             "??",
		"\x9b2J\xff":               "?2J?",
		"half \xe2\x82":            "half ??",
		"\u2028 \u2066iso":         "? ?iso",
		"\ufeff\u00ad\u3164":       "???",
		"\U000e0041\ufe0f\ue000":   "???",
	} {
		if got := Line(in); got != want {
			t.Errorf("Line(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestManyLinesBecomeOne(t *testing.T) {
	if got := OneLine("a\n  b\x1b\n\nc\n"); got != "a; b?; c" {
		t.Errorf("%q", got)
	}
}

func TestOnlyTheOwnTextHasColoursAndLines(t *testing.T) {
	own := Text("\x1b[31mred\x1b[0m")
	got := Sprintf("%s|%s|%v|%5d|%q|%v\n", own, "\x1b[31mx", errors.New("e\ne"), 7, "\u202e", []string{"\x9b"})
	if want := Text("\x1b[31mred\x1b[0m|?[31mx|e?e|    7|\"\\u202e\"|[?]\n"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := Cell("a\nb"); got != "a?b" {
		t.Errorf("a cell is %q", got)
	}
	if got := Join([]Text{own, "b"}, ", "); got != own+", b" {
		t.Errorf("joined, it is %q", got)
	}
}

func TestTheLastNetLetsNothingButLinesAndColoursThrough(t *testing.T) {
	in := "a\n\x1b[31;1mred\x1b[0m \x1b[2J\x1b]0;t\x07\x1b[31\x1b\u202e\xff\n"
	if got, want := Block(in), "a\n\x1b[31;1mred\x1b[0m ?[2J?]0;t??[31???\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// throughJSON returns what a terminal is shown of a text as JSON.
func throughJSON(t *testing.T, text string) string {
	t.Helper()
	var out bytes.Buffer
	e := json.NewEncoder(JSON(&out))
	e.SetEscapeHTML(false)
	if err := e.Encode(map[string]string{text: text}); err != nil {
		t.Fatal(err)
	}
	var back map[string]string
	if err := json.Unmarshal(out.Bytes(), &back); err != nil {
		t.Fatalf("%q: %v", out.String(), err)
	}
	if want := strings.ToValidUTF8(text, ""); strings.ToValidUTF8(text, "x") == want && (len(back) != 1 || back[text] != text) {
		t.Errorf("%q came back as %q", text, back)
	}
	return out.String()
}

func TestJSONKeepsItsValueAndShowsNothingElse(t *testing.T) {
	for text, want := range map[string]string{
		"\u009b2J\u202e\u200b": `"\u009b2J\u202e\u200b"`,
		"\x7f\U000e0041":       `"\u007f\udb40\udc41"`,
		"漢字 <&> \\":            `"漢字 <&> \\"`,
		"\x1b\n":               `"\u001b\n"`,
		"\xff":                 `"\ufffd"`,
	} {
		if shown := throughJSON(t, text); !strings.Contains(shown, want) {
			t.Errorf("%q is shown as %s, want %s in it", text, shown, want)
		}
	}
	if got := string(escaped([]byte("{\"\xff\x9b\u2028\"}\n"))); got != "{\"\\ufffd\\ufffd\\u2028\"}\n" {
		t.Errorf("what no encoder writes becomes %q", got)
	}
}

func FuzzNothingHarmfulIsShown(f *testing.F) {
	f.Add("\x1b]0;x\x07\r\n\u202e\u200b\x9b\xff")
	f.Add("\x1b[31;1mred\x1b[0m\x1b[2J")
	f.Add("\U000e0041\ufe0f\U0010ffff\u3164")
	f.Fuzz(func(t *testing.T, text string) {
		for door, shown := range map[string]string{
			"Line": Line(text), "OneLine": OneLine(text), "Cell": string(Cell(text)), "Sprintf": string(Sprintf("%s%v", text, []string{text})),
			"JSON": strings.ReplaceAll(throughJSON(t, text), "\n", ""),
		} {
			if r := bad(shown); r != 0 {
				t.Errorf("%s of %q shows %q: %q", door, text, r, shown)
			}
		}
		var rest strings.Builder // without the colours
		block := Block(text)
		for i := 0; i < len(block); {
			if n := sgr(block[i:]); n > 0 {
				i += n
				continue
			}
			rest.WriteByte(block[i])
			i++
		}
		if r := bad(strings.ReplaceAll(rest.String(), "\n", "")); r != 0 {
			t.Errorf("Block of %q shows %q: %q", text, r, block)
		}
	})
}
