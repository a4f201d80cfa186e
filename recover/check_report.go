package recover

import (
	"cmp"
	"slices"
	"time"
)

// CheckLevel is how alarming a check's result is, as monitoring systems call it.
type CheckLevel string

// The levels. Of several the worst counts: CRITICAL before UNKNOWN before WARNING
// before OK.
const (
	CheckOK       CheckLevel = "OK"
	CheckWarning  CheckLevel = "WARNING"
	CheckCritical CheckLevel = "CRITICAL"
	CheckUnknown  CheckLevel = "UNKNOWN"
)

// Code is the exit code by which a plugin says a level: 0, 1, 2 or 3.
func (l CheckLevel) Code() int {
	switch l {
	case CheckOK:
		return 0
	case CheckWarning:
		return 1
	case CheckCritical:
		return 2
	default:
		return 3
	}
}

// rank orders levels, the worst first.
func (l CheckLevel) rank() int {
	switch l {
	case CheckCritical:
		return 0
	case CheckUnknown:
		return 1
	case CheckWarning:
		return 2
	default:
		return 3
	}
}

// FindingKind names what a check can find, for scripts.
type FindingKind string

// The kinds of findings.
const (
	FindingLost        FindingKind = "lost"        // instances that have lost files, held or not
	FindingHalfDone    FindingKind = "half-done"   // an interrupted run left a live rescue between two states
	FindingInterrupted FindingKind = "interrupted" // any other interrupted run
	FindingUnknown     FindingKind = "unknown"     // instances that could not be looked at
	FindingNotLooked   FindingKind = "not-looked"  // the check, or a part of it, could not be made
	FindingDisplaced   FindingKind = "displaced"   // instances with files that are not at their paths, and not lost
	FindingReplaced    FindingKind = "replaced"    // instances on other files, while their deleted ones are held
	FindingHeld        FindingKind = "held"        // deleted files take more room than they may
	FindingGuard       FindingKind = "guard"       // the guard does not run, does not answer, or can't do its work
)

// Finding is one thing that a check found.
type Finding struct {
	Level CheckLevel  `json:"level"`
	Kind  FindingKind `json:"kind"`
	Text  string      `json:"text"`           // one line
	Next  string      `json:"next,omitempty"` // what to do, in a sentence or a command
}

// CheckSource says whose look at the instances a check has used.
type CheckSource string

// The sources. Empty when nobody could look.
const (
	SourceGuard CheckSource = "guard"
	SourceScan  CheckSource = "scan"
)

// CheckReport is the result of a check.
type CheckReport struct {
	Host  string     `json:"host"`
	Taken time.Time  `json:"taken"`
	Level CheckLevel `json:"level"`
	// Findings are everything that is not as it should be, the worst first.
	Findings []Finding   `json:"findings"`
	Source   CheckSource `json:"source,omitempty"`
	// Scanned is when the instances were looked at; zero when nobody could.
	Scanned time.Time `json:"scanned,omitzero"`
	// Verdicts counts the instances by every verdict there is; nil when nobody looked.
	Verdicts map[Verdict]int `json:"verdicts,omitempty"`
	// Affected are the instances that are neither intact nor unaffected, the worst first.
	Affected []Instance `json:"affected"`
	// Runs are those that are not finished, the newest first; nil when nobody could look.
	Runs []UnfinishedRun `json:"runs"`
	// Guard is what the guard says, without its Report.
	Guard  GuardStatus  `json:"guard"`
	Keeper KeeperStatus `json:"keeper"`
	// Held are the deleted files that some process has open: they still take their
	// space. Nil when nobody looked.
	Held *HeldDeleted `json:"held,omitempty"`
}

// HeldDeleted sums up deleted files that are still open.
type HeldDeleted struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"` // on disk
}

// Add adds a finding, and raises the level if it is worse.
func (r *CheckReport) Add(f Finding) {
	r.Findings = append(r.Findings, f)
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return cmp.Compare(a.Level.rank(), b.Level.rank()) })
	r.Level = r.Findings[0].Level
}

// Count returns how many instances have one of the verdicts.
func (r CheckReport) Count(verdicts ...Verdict) int {
	n := 0
	for _, v := range verdicts {
		n += r.Verdicts[v]
	}
	return n
}

// Instances returns how many instances the host has.
func (r CheckReport) Instances() int { return r.Count(Verdicts()...) }

// Lost returns how many instances have lost files, whether somebody holds them or not.
func (r CheckReport) Lost() int { return r.Count(VerdictLost, VerdictConflict, VerdictRecoverable) }

// Interrupted returns how many runs were interrupted.
func (r CheckReport) Interrupted() int {
	n := 0
	for _, run := range r.Runs {
		if run.State != RunRunning {
			n++
		}
	}
	return n
}

// HalfDone returns how many instances are in the middle of a live rescue that was interrupted.
func (r CheckReport) HalfDone() int {
	n := 0
	for _, run := range r.Runs {
		n += len(run.HalfDone)
	}
	return n
}

// UnmadeCheck is the report of a check that could not be made at all, and why.
func UnmadeCheck(host string, why error) CheckReport {
	return CheckReport{Host: host, Taken: time.Now().UTC(), Level: CheckUnknown, Affected: []Instance{},
		Keeper:   KeeperStatus{Holds: []KeeperHold{}},
		Findings: []Finding{{Level: CheckUnknown, Kind: FindingNotLooked, Text: why.Error()}}}
}
