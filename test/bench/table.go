package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
)

// render draws the results: a line for each contender, os-rescue's with the goal.
func render(results []result) string {
	t := table.NewWriter()
	t.SetTitle("medians; ratio: the time divided by os-rescue's, above 1 os-rescue is faster")
	t.AppendHeader(table.Row{"figure", "by", "turns", "time", "ratio", "also", "goal"})
	for _, r := range results {
		for n, m := range r.Contenders {
			row := table.Row{"", m.Name, len(m.Seconds), duration(m.Median), "", also(m), ""}
			if n == 0 {
				row[0], row[6] = r.Name, verdict(r)
			} else {
				row[4] = fmt.Sprintf("%.2f", m.Ratio)
			}
			t.AppendRow(row)
		}
		t.AppendSeparator()
	}
	return t.Render()
}

func verdict(r result) string {
	switch {
	case r.Goal == "":
		return ""
	case r.Met:
		return r.Goal + ": met"
	default:
		return r.Goal + ": MISSED"
	}
}

// also is every other number, as "name number".
func also(m measured) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m.Values)) {
		parts = append(parts, fmt.Sprintf("%s %.4g", name, median(m.Values[name])))
	}
	return strings.Join(parts, "\n")
}

// duration formats seconds with three significant digits.
func duration(seconds float64) string {
	switch {
	case seconds < 1:
		return fmt.Sprintf("%.3g ms", seconds*1000)
	case seconds < 100:
		return fmt.Sprintf("%.3g s", seconds)
	default:
		return fmt.Sprintf("%.0f s", seconds)
	}
}
