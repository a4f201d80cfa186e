package novaconf

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// ErrMalformed: a file or a value in it is not understood. nova-compute would not start
// with it either, or it refers to a default of Nova's that is not known here.
var ErrMalformed = errors.New("not understood")

// name is a group and an option in it. oslo.config knows the group "DEFAULT" in this
// spelling alone, and compares others without case (cfg.py, _normalize_group_name).
type name struct{ group, option string }

const defaultGroup = "DEFAULT"

func nameOf(group, option string) name {
	if group != defaultGroup {
		group = strings.ToLower(group)
	}
	return name{group, option}
}

// assignment is one option as a file has it.
type assignment struct {
	name  name
	value string
}

// parse reads the text of one file.
//
// The format differs from other INI formats (oslo_config/iniparser.py): a line that begins
// with white space continues the value before it, comments begin with # or ; in the first
// column only, an empty line or a comment ends a value, and a pair of quotes around its
// first line is dropped.
func parse(data []byte) ([]assignment, error) {
	var all []assignment
	group, open := "", false // open: the last assignment may be continued
	text := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(data))
	number := 0
	bad := func(why string) error {
		return fmt.Errorf("line %d: %w: %s", number, ErrMalformed, why)
	}
	for line := range strings.SplitSeq(text, "\n") {
		number++
		line = strings.TrimRightFunc(line, unicode.IsSpace)
		switch {
		case line == "":
			open = false
		case line[0] == ' ' || line[0] == '\t':
			if !open {
				return nil, bad("a continuation of nothing")
			}
			all[len(all)-1].value += "\n" + strings.TrimLeftFunc(line, unicode.IsSpace)
		case line[0] == '[':
			if !strings.HasSuffix(line, "]") || len(line) <= 2 {
				return nil, bad("a section without its name or its ]")
			}
			group, open = line[1:len(line)-1], false
		case line[0] == '#' || line[0] == ';':
			open = false
		default:
			at := strings.IndexAny(line, "=:")
			if at < 0 || strings.TrimSpace(line[:at]) == "" {
				return nil, bad("neither a section nor a key with a value")
			}
			if group == "" {
				return nil, bad("a key before the first section")
			}
			all = append(all, assignment{nameOf(group, strings.TrimSpace(line[:at])), unquote(strings.TrimSpace(line[at+1:]))})
			open = true
		}
	}
	return all, nil
}

func unquote(s string) string {
	if len(s) > 1 && s[0] == s[len(s)-1] && (s[0] == '"' || s[0] == '\'') {
		return s[1 : len(s)-1]
	}
	return s
}
