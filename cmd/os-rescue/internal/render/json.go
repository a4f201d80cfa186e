package render

import (
	"encoding/json"
	"io"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/check"
	"github.com/os-rescue/os-rescue/recover/printable"
)

// JSON writes value as indented JSON. Slices of the types that scripts depend on
// are never null. A terminal that shows it is safe from the names in it.
func JSON(w io.Writer, value any) error {
	switch v := value.(type) {
	case recover.Report:
		value = fullReport(v)
	case recover.RunReport:
		value = fullRun(v)
	case recover.Plan:
		v.Instances = orEmpty(v.Instances)
		value = v
	case recover.RunStatus:
		value = fullStatus(v)
	case check.Report:
		v.Findings, v.Runs, v.Keeper.Holds = orEmpty(v.Findings), orEmpty(v.Runs), orEmpty(v.Keeper.Holds)
		v.Affected = fullReport(recover.Report{Instances: v.Affected}).Instances
		value = v
	case Overview:
		runs := []recover.RunStatus{}
		for _, r := range v.Runs {
			runs = append(runs, fullStatus(r))
		}
		v.Runs, v.Keeper.Holds = runs, orEmpty(v.Keeper.Holds)
		value = v
	}
	e := json.NewEncoder(printable.JSON(w))
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(value)
}

func fullReport(r recover.Report) recover.Report {
	r.Instances = append([]recover.Instance{}, r.Instances...)
	for i := range r.Instances {
		instance := &r.Instances[i]
		instance.Files = append([]recover.File{}, instance.Files...)
		for j := range instance.Files {
			instance.Files[j].Holders = orEmpty(instance.Files[j].Holders)
		}
	}
	return r
}

func fullRun(r recover.RunReport) recover.RunReport {
	r.Instances = append([]recover.InstanceReport{}, r.Instances...)
	for i := range r.Instances {
		r.Instances[i].Steps = orEmpty(r.Instances[i].Steps)
	}
	return r
}

func fullStatus(r recover.RunStatus) recover.RunStatus {
	r.Instances = append([]recover.InstanceStatus{}, r.Instances...)
	for i := range r.Instances {
		r.Instances[i].Steps = orEmpty(r.Instances[i].Steps)
	}
	return r
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
