package render

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/console"
)

// Text says how results are written as text.
type Text struct {
	Color bool // with ANSI colours
	// Again begins the commands that the text recommends: the program with the
	// global flags that it was called with, "os-rescue --libvirt-uri qemu:///x".
	Again string
}

// The colours, as ANSI numbers.
const (
	red    = "31;1"
	yellow = "33"
	green  = "32"
	bold   = "1"
	faint  = "2"
)

func (t Text) paint(color, s string) string {
	if !t.Color || s == "" || color == "" {
		return s
	}
	return "\x1b[" + color + "m" + s + "\x1b[0m"
}

// again puts the global flags of this call into a recommended command.
func (t Text) again(next string) string {
	if t.Again == "" {
		return next
	}
	return strings.ReplaceAll(next, "os-rescue ", t.Again+" ")
}

// page collects text, so that only one write, the last, can fail.
type page struct {
	bytes.Buffer
	Text
}

func (p *page) line(format string, args ...any) { fmt.Fprintf(&p.Buffer, format+"\n", args...) }

func (p *page) sendTo(w io.Writer) error {
	_, err := w.Write(p.Bytes())
	return err
}

// columns writes rows as an indented table with a header and without a frame.
func (p *page) columns(indent string, header []any, rows [][]any, config ...table.ColumnConfig) {
	t := table.NewWriter()
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	style.Format.Header = text.FormatUpper
	t.SetStyle(style)
	t.SetColumnConfigs(config)
	t.AppendHeader(header)
	for _, row := range rows {
		t.AppendRow(row)
	}
	for _, line := range strings.Split(t.Render(), "\n") {
		p.line("%s", strings.TrimRight(indent+line, " "))
	}
}

func right(column int) table.ColumnConfig {
	return table.ColumnConfig{Number: column, Align: text.AlignRight, AlignHeader: text.AlignRight}
}

// orDash writes a dash for an empty column, which may look like a mistake.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return console.Clean(s)
}

// short cuts text of any length to limit characters.
func short(s string, limit int) string {
	s = orDash(s)
	if runes := []rune(s); len(runes) > limit {
		return string(runes[:limit-1]) + "…"
	}
	return s
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// label names an instance by its domain, its name and its UUID.
func label(domain, name, uuid string) string {
	if name != "" {
		domain += "  " + name
	}
	return console.Clean(domain + "  " + uuid)
}
