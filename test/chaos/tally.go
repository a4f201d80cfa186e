package chaos

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// tally counts trials.
type tally struct {
	faults map[string]*count
	points map[string]int
	trials int
	acks   int
}

// count is how often a fault was injected, and how the trials with it ended.
type count struct {
	injected int
	ends     map[string]int
}

func (t *tally) add(o outcome) {
	if t.faults == nil {
		t.faults, t.points = map[string]*count{}, map[string]int{}
	}
	t.trials++
	t.acks += o.acks
	end := o.ended
	if o.finding != nil {
		end = "findings"
	}
	counted := map[string]bool{}
	for what, n := range o.injected {
		fault, point, _ := strings.Cut(what, " ")
		t.points[point] += n
		if t.faults[fault] == nil {
			t.faults[fault] = &count{ends: map[string]int{}}
		}
		t.faults[fault].injected += n
		if !counted[fault] {
			t.faults[fault].ends[end]++
			counted[fault] = true
		}
	}
}

// table is what docs/reliability.md shows.
func (t *tally) table() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%d trials, %d acknowledged blocks.\n\n", t.trials, t.acks)
	ends := []string{endWhole, endKept, endCaused, "findings"}
	fmt.Fprintf(&text, "| fault | injected | trials: %s |\n|---|---|---|---|---|---|\n", strings.Join(ends, " | "))
	for _, f := range faults() {
		c := t.faults[f.name]
		if c == nil {
			c = &count{}
		}
		fmt.Fprintf(&text, "| `%s` | %d ", f.name, c.injected)
		for _, end := range ends {
			fmt.Fprintf(&text, "| %d ", c.ends[end])
		}
		text.WriteString("|\n")
	}
	text.WriteString("\n| journal point | faults |\n|---|---|\n")
	for _, point := range slices.Sorted(maps.Keys(t.points)) {
		fmt.Fprintf(&text, "| `%s` | %d |\n", point, t.points[point])
	}
	return text.String()
}

// The table is between these lines of a file.
const (
	tableBegins = "<!-- table: make chaos TABLE= writes it -->\n"
	tableEnds   = "<!-- end of table -->\n"
)

// write writes the table into a file, with the command that made it.
func (t *tally) write(path, command string) error {
	body, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(body), tableBegins)
	_, after, ok2 := strings.Cut(rest, tableEnds)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for the table", path)
	}
	text := before + tableBegins + "`" + command + "`: " + t.table() + tableEnds + after
	return os.WriteFile(path, []byte(text), 0o644)
}
