package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// mostElsewhere is how many instances of other hosts are listed.
const mostElsewhere = 20

// elsewhere lists the selected instances of other hosts, and says what to run there.
// The options are those of the run on this host.
func elsewhere(p *page, all []recover.Elsewhere, command recover.Command, o recover.Options) {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b recover.Elsewhere) int {
		return cmp.Or(cmp.Compare(where(a), where(b)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UUID, b.UUID))
	})
	p.line("%s", p.paint(bold, "On other hosts, and left alone: "+counted(len(all), "instance")))
	var rows [][]any
	for n, e := range all {
		if n == mostElsewhere {
			break
		}
		rows = append(rows, []any{where(e), short(e.Name, 24), orDash(e.Status), e.UUID})
	}
	p.columns("  ", []any{"host", "name", "status", "instance"}, rows)
	if more := len(all) - mostElsewhere; more > 0 {
		p.line("  and %d more: --output json has all", more)
	}
	hosts := map[string][]string{}
	var order []string
	unknown := false
	for _, e := range all {
		unknown = unknown || e.Unknown
		if e.Unknown || e.Host == "" {
			continue
		}
		if hosts[e.Host] == nil {
			order = append(order, e.Host)
		}
		hosts[e.Host] = append(hosts[e.Host], e.UUID)
	}
	for _, host := range order {
		p.line("On %s: %s", host, p.paint(bold, commandFor(command, o, hosts[host])))
	}
	if unknown {
		p.line("Not known: the cell of the instance does not answer, so the instance may be on any host, even on this one. " +
			"Run this again when the cell is back.")
	}
}

func where(e recover.Elsewhere) string {
	switch {
	case e.Unknown:
		return "not known"
	case e.Host == "":
		return "none"
	default:
		return e.Host
	}
}

// commandFor returns the command that works on the same instances on their own host.
func commandFor(command recover.Command, o recover.Options, uuids []string) string {
	s := o.Selection
	words := []string{"os-rescue"}
	if command == recover.CommandReboot {
		words = append(words, string(command))
	}
	switch {
	case s.Project != "":
		words = append(words, "--project", Quote(s.Project))
		if s.ProjectDomain != "" {
			words = append(words, "--project-domain", Quote(s.ProjectDomain))
		}
	case s.All:
		words = append(words, "--all")
	default:
		for _, uuid := range uuids {
			words = append(words, "--instance", Quote(uuid))
		}
	}
	if command == recover.CommandRescue && o.Mode != "" && o.Mode != recover.ModeReboot {
		words = append(words, "--mode", Quote(string(o.Mode)))
	}
	return strings.Join(words, " ")
}

// Quote writes a word so that a shell reads it as one.
func Quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/:._-+,@%=", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func warnings(p *page, texts []string) {
	for _, w := range texts {
		p.line("%s %s", p.paint(yellow, "Warning:"), w)
	}
}

// novaState says in a few words which state Nova has for an instance.
func novaState(s recover.Server) string {
	if s.Unknown {
		return "unknown in Nova"
	}
	words := []string{fmt.Sprintf("%s in Nova", orDash(s.Status))}
	if s.TaskState != "" {
		words = append(words, "task "+s.TaskState)
	}
	if s.Locked {
		words = append(words, "locked already")
	}
	return strings.Join(words, ", ")
}
