package recover

import (
	"cmp"
	"slices"
	"time"
)

// checkFacts are what a check has found out, and the errors that kept it from the rest.
type checkFacts struct {
	host      string
	now       time.Time
	guard     GuardStatus
	guardErr  error
	runs      []UnfinishedRun
	runsErr   error
	keeper    KeeperStatus
	keeperErr error
	source    CheckSource // of scanned and report; empty when nobody could look
	scanned   time.Time
	report    Report
	scanErr   error // also when the guard's report could not be used
}

// isGuardEnough is true when the guard's report is fresh enough to go without a scan.
func (f checkFacts) isGuardEnough(o CheckOptions) bool {
	return f.guardErr == nil && f.guard.Running && !f.guard.Scanned.IsZero() && f.now.Sub(f.guard.Scanned) <= o.MaxAge
}

// sum makes the report: the counts, then the findings by them.
func (f checkFacts) sum(o CheckOptions) CheckReport {
	r := CheckReport{Host: f.host, Taken: f.now, Level: CheckOK, Source: f.source, Scanned: f.scanned, Findings: []Finding{},
		Affected: []Instance{}, Runs: f.runs, Guard: f.guard, Keeper: f.keeper}
	r.Guard.Report = Report{}
	if r.Keeper.Holds == nil {
		r.Keeper.Holds = []KeeperHold{}
	}
	if f.source != "" {
		instances := f.withIncidents()
		r.Verdicts = map[Verdict]int{}
		for _, v := range Verdicts() {
			r.Verdicts[v] = 0
		}
		for _, i := range instances {
			r.Verdicts[i.Verdict]++
			if i.Verdict != VerdictIntact && i.Verdict != VerdictUnaffected {
				r.Affected = append(r.Affected, i)
			}
		}
		slices.SortStableFunc(r.Affected, func(a, b Instance) int {
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

func rankOf(v Verdict) int { return slices.Index(Verdicts(), v) }

// withIncidents returns the instances with the deletions that the guard has noticed
// since its last scan, and those that libvirt has forgotten.
func (f checkFacts) withIncidents() []Instance {
	all := slices.Clone(f.report.Instances)
	for _, incident := range f.guard.Incidents {
		n := slices.IndexFunc(all, func(i Instance) bool { return i.UUID == incident.UUID })
		if incident.Replaced || n >= 0 && f.source != SourceGuard {
			continue // a scan of one's own is newer than what the guard noticed
		}
		if n < 0 {
			all = append(all, Instance{UUID: incident.UUID, Name: incident.Name, Domain: incident.Domain, State: StateShutOff,
				ProjectID: incident.ProjectID, ProjectName: incident.ProjectName, Files: []File{}})
			n = len(all) - 1
		}
		all[n] = merge(all[n], incident)
	}
	return all
}

// merge returns the instance with an incident's files deleted; unchanged if its
// scan says so already.
func merge(i Instance, incident Incident) Instance {
	switch i.Verdict {
	case VerdictLost, VerdictConflict, VerdictRecoverable:
		return i
	}
	i.Verdict = VerdictRecoverable
	noticed := incident.Since.UTC().Format(time.RFC3339)
	i.Reasons = append(slices.Clone(i.Reasons), "the guard noticed the deletion at "+noticed+", and holds the files")
	i.Files = slices.Clone(i.Files)
	for _, path := range incident.Paths {
		n := slices.IndexFunc(i.Files, func(f File) bool { return f.Path == path })
		if n < 0 {
			i.Files = append(i.Files, File{Path: path, Role: RoleOther, Holders: []Holder{}})
			n = len(i.Files) - 1
		}
		i.Files[n].State = FileDeleted
	}
	return i
}

// held sums up the deleted files that a process has open, each inode once: the
// guests', the keeper's and the guard's, which has more than the instances' own.
func (f checkFacts) held(instances []Instance) *HeldDeleted {
	sizes := map[string]int64{}
	for _, i := range instances {
		for _, file := range i.Files {
			key := inodeKey(file.Device, file.Inode)
			if key != "" && len(file.Holders) > 0 && (file.State == FileDeleted || file.State == FileReplaced) {
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
