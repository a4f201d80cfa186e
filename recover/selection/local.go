package selection

import (
	"fmt"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// FromScan returns the selected instances of a scan. Every instance that the selection
// names must be in it: a typing error must not shorten a rescue. recover.ErrUsage for a
// selection that is not valid or not unique, recover.ErrNothingSelected when nothing
// matches.
func FromScan(s recover.Selection, report recover.Report) ([]recover.Instance, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.All {
		return report.Instances, nil
	}
	if s.Project != "" {
		return projectIn(report, s.Project)
	}
	var chosen []recover.Instance
	for _, want := range s.Instances {
		n := slices.IndexFunc(report.Instances, func(i recover.Instance) bool {
			return strings.EqualFold(i.UUID, want) || i.Domain == want
		})
		if n < 0 {
			domains := list(report.Instances, func(i recover.Instance) string { return i.UUID + " (" + i.Domain + ")" })
			return nil, fmt.Errorf("%w: this host has no domain %s; its domains are: %s", recover.ErrNothingSelected, want, domains)
		}
		if !slices.ContainsFunc(chosen, func(i recover.Instance) bool { return i.UUID == report.Instances[n].UUID }) {
			chosen = append(chosen, report.Instances[n])
		}
	}
	return chosen, nil
}

// projectIn returns the instances of a project, given by ID or name. It matches IDs
// first, because a name may be another project's ID, and because projects of two
// Keystone domains may have the same name.
func projectIn(report recover.Report, project string) ([]recover.Instance, error) {
	byID := func(i recover.Instance) bool { return i.ProjectID == project }
	byName := func(i recover.Instance) bool { return i.ProjectName == project }
	for _, match := range []func(recover.Instance) bool{byID, byName} {
		var chosen []recover.Instance
		ids := map[string]bool{}
		for _, i := range report.Instances {
			if match(i) {
				chosen = append(chosen, i)
				ids[i.ProjectID] = true
			}
		}
		if len(ids) > 1 {
			return nil, fmt.Errorf("%w: several projects are called %q: give one of these IDs: %s", recover.ErrUsage, project,
				list(chosen, func(i recover.Instance) string { return i.ProjectID }))
		}
		if len(chosen) > 0 {
			return chosen, nil
		}
	}
	projects := list(report.Instances, func(i recover.Instance) string {
		if i.ProjectID == "" {
			return ""
		}
		return i.ProjectName + " (" + i.ProjectID + ")"
	})
	return nil, fmt.Errorf("%w: no domain of this host belongs to the project %q; projects here: %s",
		recover.ErrNothingSelected, project, projects)
}

// list joins the names of instances, without empty ones and duplicates.
func list(instances []recover.Instance, name func(recover.Instance) string) string {
	var names []string
	for _, i := range instances {
		if n := name(i); n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
