package render

import (
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/os-rescue/os-rescue/recover/printable"
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

func (t Text) paint(color, s string) printable.Text {
	clean := printable.Text(printable.Line(s))
	if !t.Color || s == "" || color == "" {
		return clean
	}
	return printable.Text("\x1b["+color+"m") + clean + "\x1b[0m"
}

// again puts the global flags of this call into a recommended command.
func (t Text) again(next string) string {
	if t.Again == "" {
		return next
	}
	return strings.ReplaceAll(next, "os-rescue ", t.Again+" ")
}

// page collects text, so that only one write, the last, can fail. What it is given is cleaned,
// but for a printable.Text.
type page struct {
	text strings.Builder
	Text
}

func (p *page) line(format string, args ...any) {
	p.text.WriteString(string(printable.Sprintf(format, args...)) + "\n")
}

func (p *page) sendTo(w io.Writer) error {
	_, err := io.WriteString(w, p.text.String())
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
		cells := make(table.Row, len(row))
		for i, value := range row {
			cells[i] = string(printable.Cell(value))
		}
		t.AppendRow(cells)
	}
	for _, line := range strings.Split(t.Render(), "\n") {
		p.line("%s", printable.Text(strings.TrimRight(indent+line, " ")))
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
	return s
}

// short cuts text of any length to limit characters.
func short(s string, limit int) string {
	s = printable.Line(orDash(s))
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
	return domain + "  " + uuid
}
