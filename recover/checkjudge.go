package recover

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// checkFacts are what a check has found out, and what kept it from the rest.
type checkFacts struct {
	host      string
	now       time.Time
	guard     GuardStatus
	guardErr  error
	runs      []UnfinishedRun
	runsErr   error
	keeper    KeeperStatus
	keeperErr error
	source    CheckSource
	scanned   time.Time
	report    Report
	scanErr   error // also when the guard's report could not be used
}

// guarded is true when what the guard knows will do.
func (f checkFacts) guarded(o CheckOptions) bool {
	return f.guardErr == nil && f.guard.Running && !f.guard.Scanned.IsZero() && f.now.Sub(f.guard.Scanned) <= o.MaxAge
}

// sum makes the report: what is wrong, how bad each of it is, and what to do.
func (f checkFacts) sum(o CheckOptions) CheckReport {
	r := CheckReport{Host: f.host, Taken: f.now, Level: CheckOK, Source: f.source, Scanned: f.scanned, Findings: []Finding{},
		Affected: []Instance{}, Runs: f.runs, Guard: f.guard, Keeper: f.keeper}
	r.Guard.Report = Report{}
	r.Keeper.Holds = orNone(r.Keeper.Holds)
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
	c := checking{CheckReport: &r, o: o}
	c.notLooked(f)
	c.lost()
	c.unfinished()
	c.others()
	c.replaced()
	c.held()
	c.guard(f)
	return r
}

func rankOf(v Verdict) int { return slices.Index(Verdicts(), v) }

func orNone[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// withIncidents returns the instances with what the guard has noticed since its
// last scan, and those that libvirt has forgotten.
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
		all[n].take(incident)
	}
	return all
}

// take notes that an instance's files were deleted, unless the scan says so.
func (i *Instance) take(incident Incident) {
	switch i.Verdict {
	case VerdictLost, VerdictConflict, VerdictRecoverable:
		return
	}
	i.Verdict = VerdictRecoverable
	i.Reasons = append(slices.Clone(i.Reasons), "the guard noticed the deletion at "+incident.Since.UTC().Format(time.RFC3339)+", and holds the files")
	i.Files = slices.Clone(i.Files)
	for _, path := range incident.Paths {
		n := slices.IndexFunc(i.Files, func(f File) bool { return f.Path == path })
		if n < 0 {
			i.Files = append(i.Files, File{Path: path, Role: RoleOther, Holders: []Holder{}})
			n = len(i.Files) - 1
		}
		i.Files[n].State = FileDeleted
	}
}

// held sums up the deleted files that somebody has open, each inode once: the
// guests, the keeper, and the guard, which has more than the instances' own.
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

// checking is a report while its findings are made.
type checking struct {
	*CheckReport
	o CheckOptions
}

func (c checking) find(level CheckLevel, kind FindingKind, next, format string, args ...any) {
	c.Add(Finding{Level: level, Kind: kind, Text: fmt.Sprintf(format, args...), Next: next})
}

// notLooked: what could not be found out may be as bad as anything.
func (c checking) notLooked(f checkFacts) {
	if f.scanErr != nil {
		c.find(CheckUnknown, FindingNotLooked, "os-rescue scan", "this host could not be scanned: %v", f.scanErr)
	}
	if f.runsErr != nil {
		c.find(CheckUnknown, FindingNotLooked, "os-rescue status", "the runs could not be read: %v", f.runsErr)
	}
	if f.keeperErr != nil {
		c.find(CheckUnknown, FindingNotLooked, "os-rescue status", "the keeper could not be asked: %v", f.keeperErr)
	}
}

func (c checking) lost() {
	n := c.Lost()
	level := CheckOK
	switch {
	case n == 0:
		return
	case n >= c.o.Critical:
		level = CheckCritical
	case n >= c.o.Warning:
		level = CheckWarning
	}
	next := "do not stop, reboot, migrate or delete them; os-rescue --all --dry-run"
	switch {
	case c.Verdicts[VerdictRecoverable] > 0:
	case c.Verdicts[VerdictConflict] > 0:
		next = "do not stop, reboot, migrate or delete them; os-rescue --all --replace-existing --dry-run"
	default:
		next = "os-rescue scan says what is still possible"
	}
	var parts []string
	for _, v := range []Verdict{VerdictLost, VerdictConflict, VerdictRecoverable} {
		if c.Verdicts[v] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.Verdicts[v], v))
		}
	}
	c.find(level, FindingLost, next, "%s lost files (%s): %s", c.have(n), strings.Join(parts, ", "), c.names(VerdictLost, VerdictConflict, VerdictRecoverable))
}

// have says how many of the host's instances have something.
func (c checking) have(n int) string {
	verb := "have"
	if n == 1 {
		verb = "has"
	}
	return fmt.Sprintf("%d of %s %s", n, plural(c.Instances(), "instance"), verb)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// names names the affected instances of some verdicts.
func (c checking) names(verdicts ...Verdict) string {
	var names []string
	for _, i := range c.Affected {
		if slices.Contains(verdicts, i.Verdict) {
			names = append(names, called(i.Domain, i.Name))
		}
	}
	return few(names)
}

// called names an instance in the middle of a sentence.
func called(domain, name string) string {
	if name == "" {
		return domain
	}
	return domain + " (" + name + ")"
}

// few names some, for a line that must stay short.
func few(names []string) string {
	const most = 3
	if more := len(names) - most; more > 0 {
		names = append(names[:most:most], fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

func (c checking) unfinished() {
	for _, run := range c.Runs {
		next := "os-rescue resume " + run.Run
		var half []string
		for _, h := range run.HalfDone {
			half = append(half, called(h.Domain, h.Name))
		}
		damage := ""
		if run.Error != "" {
			damage = ": " + run.Error
		}
		switch {
		case run.State == RunRunning:
		case len(half) > 0:
			c.find(CheckCritical, FindingHalfDone, next, "run %s was interrupted and left a live rescue half done: %s%s", run.Run, few(half), damage)
		default:
			c.find(CheckWarning, FindingInterrupted, next, "run %s was interrupted%s", run.Run, damage)
		}
	}
}

func (c checking) others() {
	if n := c.Verdicts[VerdictUnknown]; n > 0 {
		c.find(CheckUnknown, FindingUnknown, "os-rescue scan says why", "%d of %s could not be looked at: %s", n, plural(c.Instances(), "instance"), c.names(VerdictUnknown))
	}
	if n := c.Verdicts[VerdictDisplaced]; n > 0 {
		c.find(CheckWarning, FindingDisplaced, "bring the files, or the mount, back to where they belong", "%s displaced files: %s", c.have(n), c.names(VerdictDisplaced))
	}
}

func (c checking) replaced() {
	var names []string
	var bytes int64
	for _, i := range c.Guard.Incidents {
		if i.Replaced {
			names, bytes = append(names, called(i.Domain, i.Name)), bytes+i.Bytes
		}
	}
	if len(names) > 0 {
		c.find(CheckWarning, FindingReplaced, "make sure that what it runs on is what its owner wants: the deleted files may be newer; \"os-rescue guard release UUID\" lets them go",
			"%s on other files, and the guard still holds the deleted ones (%s): %s", runOn(len(names)), size(bytes), few(names))
	}
}

func runOn(n int) string {
	if n == 1 {
		return "1 instance runs"
	}
	return fmt.Sprintf("%d instances run", n)
}

func size(bytes int64) string { return humanize.IBytes(uint64(max(bytes, 0))) }

func (c checking) held() {
	if c.Held == nil {
		return
	}
	level, limit := CheckWarning, c.o.WarningHeld
	switch held := c.Held.Bytes; {
	case c.o.CriticalHeld > 0 && held > c.o.CriticalHeld:
		level, limit = CheckCritical, c.o.CriticalHeld
	case c.o.WarningHeld > 0 && held > c.o.WarningHeld:
	default:
		return
	}
	c.find(level, FindingHeld, "os-rescue status says who holds what", "deleted files that are still open (%d) take %s, more than %s",
		c.Held.Files, size(c.Held.Bytes), size(limit))
}

func (c checking) guard(f checkFacts) {
	const restart = "systemctl status os-rescue-guard"
	age := f.now.Sub(cmp.Or(f.guard.Scanned, f.guard.Started)).Round(time.Second)
	switch {
	case f.guardErr != nil:
		c.find(CheckWarning, FindingGuard, restart, "the guard does not answer: %v", f.guardErr)
	case !f.guard.Running && c.o.RequireGuard:
		c.find(CheckWarning, FindingGuard, "systemctl start os-rescue-guard", "no guard runs on this host")
	case !f.guard.Running:
	case f.guard.Scanned.IsZero() && age > c.o.MaxAge:
		c.find(CheckWarning, FindingGuard, restart, "the guard was started %s ago and has not scanned this host yet", age)
	case !f.guard.Scanned.IsZero() && age > c.o.MaxAge:
		c.find(CheckWarning, FindingGuard, restart, "the guard's last scan is %s old, more than %s", age, c.o.MaxAge)
	}
	if n := len(f.guard.Problems); n > 0 {
		c.find(CheckWarning, FindingGuard, restart, "the guard has %s: %s", plural(n, "problem"), strings.Join(f.guard.Problems, "; "))
	}
}
