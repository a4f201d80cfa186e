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

// Level is how alarming a check's result is, as monitoring systems call it.
type Level string

// The levels. Of several the worst counts: CRITICAL before UNKNOWN before WARNING
// before OK.
const (
	OK       Level = "OK"
	Warning  Level = "WARNING"
	Critical Level = "CRITICAL"
	Unknown  Level = "UNKNOWN"
)

// Code is the exit code by which a plugin says a level: 0, 1, 2 or 3.
func (l Level) Code() int {
	switch l {
	case OK:
		return 0
	case Warning:
		return 1
	case Critical:
		return 2
	default:
		return 3
	}
}

// rank orders levels, the worst first.
func (l Level) rank() int {
	switch l {
	case Critical:
		return 0
	case Unknown:
		return 1
	case Warning:
		return 2
	default:
		return 3
	}
}

// FindingKind names what a check can find, for scripts.
type FindingKind string

// The kinds of findings.
const (
	FindingLost        FindingKind = "lost"         // instances that have lost files, held or not
	FindingHalfDone    FindingKind = "half-done"    // an interrupted run left a live rescue between two states
	FindingSuspended   FindingKind = "suspended"    // an interrupted run left guests suspended or frozen
	FindingInterrupted FindingKind = "interrupted"  // any other interrupted run
	FindingUnknown     FindingKind = "unknown"      // instances that could not be judged
	FindingNotLooked   FindingKind = "not-looked"   // the check, or a part of it, could not be made
	FindingDisplaced   FindingKind = "displaced"    // instances with files that are not at their paths, and not lost
	FindingReplaced    FindingKind = "replaced"     // instances on other files, while their deleted ones are held
	FindingNextStart   FindingKind = "next-start"   // instances that a start would give other files
	FindingHeld        FindingKind = "held"         // deleted files take more room than they may
	FindingForeign     FindingKind = "foreign"      // processes that libvirt does not know write deleted files of instances
	FindingComputeID   FindingKind = "compute-id"   // Nova's compute_id is missing, or is another one: nova-compute can't start again
	FindingSoftDeleted FindingKind = "soft-deleted" // instances that miss files, and that their owners have deleted: no incident
	FindingGuard       FindingKind = "guard"        // the guard does not run, does not answer, or can't do its work
)

// Finding is one thing that a check found.
type Finding struct {
	Level Level       `json:"level"`          // how bad it is by itself
	Kind  FindingKind `json:"kind"`           // what it is, for scripts
	Text  string      `json:"text"`           // one line
	Next  string      `json:"next,omitempty"` // what to do, in a sentence or a command
}

// Source says whose look at the instances a check has used.
type Source string

// The sources: the guard's last full scan, or a scan that the check has made itself.
const (
	SourceGuard Source = "guard"
	SourceScan  Source = "scan"
)

// Report is the result of a check.
type Report struct {
	Host  string    `json:"host"`  // this host's name
	Taken time.Time `json:"taken"` // when the check was made
	Level Level     `json:"level"` // the worst of the findings
	// Findings are everything that is not as it should be, or worth a word, the worst first.
	Findings []Finding `json:"findings"`
	// Source is who looked at the instances; empty when nobody could.
	Source Source `json:"source,omitempty"`
	// Scanned is when the instances were looked at; zero when nobody could.
	Scanned time.Time `json:"scanned,omitzero"`
	// Verdicts counts the instances by every verdict there is; nil when nobody looked.
	Verdicts map[recover.Verdict]int `json:"verdicts,omitempty"`
	// Affected are the instances that are neither intact nor unaffected, the worst first.
	Affected []recover.Instance `json:"affected"`
	// Runs are those that are not finished, the newest first; nil when nobody could look.
	Runs []runs.UnfinishedRun `json:"runs"`
	// Guard is what the guard says, without its Report.
	Guard guard.Status `json:"guard"`
	// Keeper is what the keeper holds.
	Keeper pin.KeeperStatus `json:"keeper"`
	// Held are the deleted files that some process has open: they still take their
	// space. Nil when nobody looked.
	Held *HeldDeleted `json:"held,omitempty"`
}

// HeldDeleted sums up deleted files that are still open.
type HeldDeleted struct {
	Files int   `json:"files"` // each inode once
	Bytes int64 `json:"bytes"` // on disk
}

// Add adds a finding to the others of its level, and raises the report's level if it is
// worse.
func (r *Report) Add(f Finding) {
	f.Text = recover.InWords(f.Text)
	r.Findings = append(r.Findings, f)
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return cmp.Compare(a.Level.rank(), b.Level.rank()) })
	r.Level = r.Findings[0].Level
}

// Count returns how many instances have one of the verdicts.
func (r Report) Count(verdicts ...recover.Verdict) int {
	n := 0
	for _, v := range verdicts {
		n += r.Verdicts[v]
	}
	return n
}

// Instances returns how many instances the host has.
func (r Report) Instances() int { return r.Count(recover.Verdicts()...) }

// Lost returns how many instances have lost files, whether somebody holds them or not.
// A conflict about the next start alone, or about what is held of earlier files, is no loss.
func (r Report) Lost() int {
	return r.Count(recover.VerdictLost, recover.VerdictConflict, recover.VerdictRecoverable) - len(r.disputed())
}

// disputed returns the instances that miss no file, and are a conflict all the same.
func (r Report) disputed() []recover.Instance {
	var list []recover.Instance
	for _, i := range r.Affected {
		if i.Verdict == recover.VerdictConflict && i.IsWhole() {
			list = append(list, i)
		}
	}
	return list
}

// diverging returns the instances that miss no file, and that a start would give other
// files than they have.
func (r Report) diverging() []recover.Instance {
	return slices.DeleteFunc(r.disputed(), func(i recover.Instance) bool { return i.AboutNextStart() == "" })
}

// Interrupted returns how many runs were interrupted, and are not under way again.
func (r Report) Interrupted() int {
	n := 0
	for _, run := range r.Runs {
		if run.State != recover.RunRunning {
			n++
		}
	}
	return n
}

// HalfDone returns how many instances are in the middle of a live rescue that was interrupted.
func (r Report) HalfDone() int {
	n := 0
	for _, run := range r.Runs {
		n += len(run.HalfDone)
	}
	return n
}

// Unmade returns the report of a check that could not be made at all: its level is
// UNKNOWN, and its only finding says why.
func Unmade(host string, why error) Report {
	return Report{
		Host:     host,
		Taken:    time.Now().UTC(),
		Level:    Unknown,
		Findings: []Finding{{Level: Unknown, Kind: FindingNotLooked, Text: recover.InWords(why.Error())}},
		Affected: []recover.Instance{},
		Keeper:   pin.KeeperStatus{Holds: []pin.KeeperHold{}},
	}
}
