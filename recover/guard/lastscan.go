package guard

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

// lastScan is the guard's last full scan, brought up to date by the deletions that
// it has noticed since. It is safe for concurrent use.
type lastScan struct {
	mu     sync.Mutex
	report recover.Report
	ended  time.Time // zero before the first scan
}

// set takes the report of a scan that has just ended.
func (l *lastScan) set(report recover.Report) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.report, l.ended = report, time.Now().UTC()
}

// get returns the report, which nobody changes any more, and when its scan ended.
func (l *lastScan) get() (recover.Report, time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.report, l.ended
}

// instance returns an instance as it is known now; false for one that is not.
func (l *lastScan) instance(uuid string) (recover.Instance, bool) {
	report, _ := l.get()
	if i := findInstance(report, uuid); i != nil {
		return *i, true
	}
	return recover.Instance{}, false
}

func findInstance(r recover.Report, uuid string) *recover.Instance {
	n := slices.IndexFunc(r.Instances, func(i recover.Instance) bool { return i.UUID == uuid })
	if n < 0 {
		return nil
	}
	return &r.Instances[n]
}

// markDeleted marks the files of an instance that have lost their names since: who
// asks for the report must not wait for the next scan.
func (l *lastScan) markDeleted(uuid string, gone map[recover.Inode]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := findInstance(l.report, uuid)
	if i == nil {
		return
	}
	// A copy: whoever was given the last one may be reading it.
	fresh := *i
	fresh.Files = slices.Clone(i.Files)
	changed := false
	for n := range fresh.Files {
		f := &fresh.Files[n]
		if f.State == recover.FilePresent && gone[f.Identity()] {
			facts := verdict.Facts{
				Kind: verdict.KindOf(f.Role), Active: fresh.PID != 0, Holder: verdict.Own, At: verdict.Nothing, Named: verdict.NoName, Reachable: true,
			}
			if _, err := os.Lstat(f.Path); !errors.Is(err, fs.ErrNotExist) {
				facts.At = verdict.Stranger
			}
			judged := verdict.File(facts)
			f.State, f.Remedy, f.Unlinked, changed = judged.State, judged.Remedy, true, true
		}
	}
	if !changed {
		return
	}
	fresh.Verdict, fresh.Reasons, fresh.Possible = "", nil, nil
	verdict.Instance(&fresh)
	l.report.Instances = slices.Clone(l.report.Instances)
	*findInstance(l.report, uuid) = fresh
}
