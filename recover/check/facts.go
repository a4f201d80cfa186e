package check

import (
	"cmp"
	"slices"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/runs"
)

// checkFacts are what a check has found out, and the errors that kept it from the rest.
type checkFacts struct {
	host      string
	now       time.Time
	guard     guard.Status
	guardErr  error
	runs      []runs.UnfinishedRun
	runsErr   error
	keeper    pin.KeeperStatus
	keeperErr error
	source    Source // of scanned and report; empty when nobody could look
	scanned   time.Time
	report    recover.Report
	scanErr   error // also when the guard's report could not be used
}

// isGuardEnough is true when the guard's report is fresh enough to go without a scan.
func (f checkFacts) isGuardEnough(o Options) bool {
	return f.guardErr == nil && f.guard.Running && !f.guard.Scanned.IsZero() && f.now.Sub(f.guard.Scanned) <= o.MaxAge
}

// sum makes the report: the counts, then the findings by them.
func (f checkFacts) sum(o Options) Report {
	r := Report{
		Host:     f.host,
		Taken:    f.now,
		Level:    OK,
		Findings: []Finding{},
		Source:   f.source,
		Scanned:  f.scanned,
		Affected: []recover.Instance{},
		Runs:     f.runs,
		Guard:    f.guard,
		Keeper:   f.keeper,
	}
	r.Guard.Report = recover.Report{}
	if r.Keeper.Holds == nil {
		r.Keeper.Holds = []pin.KeeperHold{}
	}
	if f.source != "" {
		instances := slices.DeleteFunc(f.withIncidents(), func(i recover.Instance) bool {
			return i.PID == 0 && slices.Contains(f.guard.SoftDeleted, i.UUID)
		})
		r.Verdicts = map[recover.Verdict]int{}
		for _, v := range recover.Verdicts() {
			r.Verdicts[v] = 0
		}
		for _, i := range instances {
			r.Verdicts[i.Verdict]++
			if i.Verdict != recover.VerdictIntact && i.Verdict != recover.VerdictUnaffected {
				r.Affected = append(r.Affected, i)
			}
		}
		slices.SortStableFunc(r.Affected, func(a, b recover.Instance) int {
			return cmp.Or(cmp.Compare(rankOf(a.Verdict), rankOf(b.Verdict)), cmp.Compare(a.Domain, b.Domain))
		})
		r.Held = f.held(instances)
	}
	seen := checked{facts: f, options: o, report: r}
	for _, find := range finders() {
		for _, finding := range find(seen) {
			r.Add(finding)
		}
	}
	return r
}

func rankOf(v recover.Verdict) int { return slices.Index(recover.Verdicts(), v) }

// withIncidents returns the instances with the deletions that the guard has noticed
// since its last scan, and those that libvirt has forgotten.
func (f checkFacts) withIncidents() []recover.Instance {
	all := slices.Clone(f.report.Instances)
	for _, incident := range f.guard.Incidents {
		n := slices.IndexFunc(all, func(i recover.Instance) bool { return i.UUID == incident.UUID })
		if incident.Replaced || n >= 0 && f.source != SourceGuard {
			continue // a scan of one's own is newer than what the guard noticed
		}
		if n < 0 {
			all = append(all, recover.Instance{
				UUID:        incident.UUID,
				Name:        incident.Name,
				Domain:      incident.Domain,
				State:       recover.StateShutOff,
				ProjectID:   incident.ProjectID,
				ProjectName: incident.ProjectName,
				Files:       []recover.File{},
			})
			n = len(all) - 1
		}
		all[n] = merge(all[n], incident)
	}
	return all
}

// merge returns the instance with an incident's files deleted; unchanged if its
// scan says so already.
func merge(i recover.Instance, incident guard.Incident) recover.Instance {
	switch i.Verdict {
	case recover.VerdictLost, recover.VerdictConflict, recover.VerdictRecoverable:
		return i
	}
	i.Verdict = recover.VerdictRecoverable
	noticed := incident.Since.UTC().Format(time.RFC3339)
	i.Reasons = append(slices.Clone(i.Reasons), "the guard noticed the deletion at "+noticed+", and holds the files")
	i.Files = slices.Clone(i.Files)
	for _, path := range incident.Paths {
		n := slices.IndexFunc(i.Files, func(f recover.File) bool { return f.Path == path })
		if n < 0 {
			i.Files = append(i.Files, recover.File{Path: path, Role: recover.RoleOther, Holders: []recover.Holder{}})
			n = len(i.Files) - 1
		}
		i.Files[n].State = recover.FileDeleted
	}
	return i
}

// held sums up the deleted files that a process has open, each inode once: the
// guests', the keeper's and the guard's, which has more than the instances' own.
func (f checkFacts) held(instances []recover.Instance) *HeldDeleted {
	sizes := map[string]int64{}
	for _, i := range instances {
		for _, file := range i.Files {
			key := file.Identity().Key()
			if key != "" && len(file.Holders) > 0 && (file.State == recover.FileDeleted || file.State == recover.FileReplaced) {
				sizes[key] = file.Allocated
			}
		}
	}
	for _, hold := range f.keeper.Holds {
		sizes[hold.Key] = hold.Allocated
	}
	held := &HeldDeleted{Files: len(sizes)}
	for _, size := range sizes {
		held.Bytes += size
	}
	if g := f.guard.Held; g.DeletedBytes > held.Bytes {
		held.Files, held.Bytes = g.DeletedFiles, g.DeletedBytes
	}
	return held
}
