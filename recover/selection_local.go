package recover

import (
	"fmt"
	"slices"
	"strings"
)

// fromScan returns the instances of a scan that a selection means. Every UUID
// that it names must be there: a typing error must not shorten a rescue.
func fromScan(s Selection, report Report) ([]Instance, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.All {
		return report.Instances, nil
	}
	if s.Project != "" {
		return projectIn(report, s.Project)
	}
	var chosen []Instance
	for _, want := range s.Instances {
		n := slices.IndexFunc(report.Instances, func(i Instance) bool {
			return strings.EqualFold(i.UUID, want) || i.Domain == want
		})
		if n < 0 {
			return nil, fmt.Errorf("%w: %s is no domain of this host; here are: %s", ErrNothingSelected, want, list(report.Instances, func(i Instance) string {
				return i.UUID + " (" + i.Domain + ")"
			}))
		}
		if !slices.ContainsFunc(chosen, func(i Instance) bool { return i.UUID == report.Instances[n].UUID }) {
			chosen = append(chosen, report.Instances[n])
		}
	}
	return chosen, nil
}

// projectIn returns the instances of a project. It matches the IDs first: a name may be another project's ID, and the
// names of two projects (of two Keystone domains) may be the same.
func projectIn(report Report, project string) ([]Instance, error) {
	byID := func(i Instance) bool { return i.ProjectID == project }
	byName := func(i Instance) bool { return i.ProjectName == project }
	for _, match := range []func(Instance) bool{byID, byName} {
		var chosen []Instance
		ids := map[string]bool{}
		for _, i := range report.Instances {
			if match(i) {
				chosen = append(chosen, i)
				ids[i.ProjectID] = true
			}
		}
		if len(ids) > 1 {
			return nil, fmt.Errorf("%w: several projects are called %q: give the ID of one of %s", ErrUsage, project,
				list(chosen, func(i Instance) string { return i.ProjectID }))
		}
		if len(chosen) > 0 {
			return chosen, nil
		}
	}
	return nil, fmt.Errorf("%w: no domain of this host belongs to the project %q; projects here: %s", ErrNothingSelected, project,
		list(report.Instances, func(i Instance) string {
			if i.ProjectID == "" {
				return ""
			}
			return i.ProjectName + " (" + i.ProjectID + ")"
		}))
}

// list joins the distinct, not empty names of instances.
func list(instances []Instance, name func(Instance) string) string {
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
