package scan

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

// guardAlone is what a guard that is at fault has noted of what it holds: nobody else may have
// that, and the guard can't be asked. nil for a guard that answers, or that does not run.
type guardAlone struct {
	fault   *pin.GuardFault
	notes   []inventory.Note
	records map[string]inventory.Record
	unread  error // why the notes can't be read
}

func newGuardAlone(fault *pin.GuardFault, stateDir string, records map[string]inventory.Record) *guardAlone {
	g := &guardAlone{fault: fault, records: records}
	boot, err := procfs.BootID(procfs.Dir)
	if err == nil {
		g.notes, err = inventory.In(stateDir).Notes(boot)
	}
	g.unread = err
	return g
}

// mayHold says what the guard may hold of an instance that nobody else has; empty for nothing. isSeen
// is true for a noted file that need not be asked for.
func (g *guardAlone) mayHold(uuid string, isOff bool, isSeen func(inventory.Note) bool) string {
	const most = 3
	noted := 0
	var unseen []string
	for _, n := range g.notes {
		if n.IsLostBy(uuid) {
			noted++
			if !isSeen(n) {
				unseen = append(unseen, n.Path)
			}
		}
	}
	switch {
	case len(unseen) > most:
		return fmt.Sprintf("%s and %d more, which were deleted", strings.Join(unseen[:most], ", "), len(unseen)-most)
	case len(unseen) > 0:
		return strings.Join(unseen, ", ") + ", which was deleted"
	case !isOff: // what it has lost, its QEMU has
		return ""
	case g.records[uuid].Incident != nil && noted == 0:
		return "files of it that were deleted at " + g.records[uuid].Incident.Since.Format("2006-01-02 15:04:05 MST")
	case g.unread != nil:
		return fmt.Sprintf("files of it (%v)", g.unread)
	}
	return ""
}

// mayHaveMore is true when the guard is at fault and may hold lost files of an instance that
// libvirt does not know.
func mayHaveMore(l *look, uuid string) bool {
	if l.alone == nil {
		return false
	}
	pins := l.pins.of(uuid)
	return l.alone.mayHold(uuid, true, func(n inventory.Note) bool { return hasInode(pins, n.Identity()) }) != ""
}

// withhold takes into account what only a guard may have that is at fault: no comfortable word is
// said of an instance that may have lost more than can be seen, and none that gives the data up. own is
// what its QEMU has open. i has its verdict.
func withhold(l *look, i *recover.Instance, own []candidate, tree lookup) error {
	if l.alone == nil {
		return nil
	}
	copies, err := l.published()
	if err != nil {
		return fmt.Errorf("%w: %w", errJournals, err)
	}
	known := slices.Concat(own, l.pins.of(i.UUID))
	isSeen := func(n inventory.Note) bool {
		if hasInode(known, n.Identity()) {
			return true
		}
		for _, path := range []string{n.Path, n.Belongs} {
			if path == "" {
				continue
			}
			at, err := tree.Stat(path)
			if err != nil {
				continue
			}
			if at.Inode() == n.Identity() { // it has its name again
				return true
			}
			if c, ok := copies.Copy(filepath.Clean(path), n.Identity()); ok && c.Identity().Is(at.Inode(), i.Process.PID != 0) {
				return true
			}
		}
		return false
	}
	isOff := i.Process.PID == 0
	what := l.alone.mayHold(i.UUID, isOff, isSeen)
	if what == "" {
		return nil
	}
	comfortable := i.Verdict == recover.VerdictIntact || i.Verdict == recover.VerdictUnaffected || i.Verdict == recover.VerdictLost
	if !isOff && !comfortable {
		return nil // what its QEMU has open can be rescued
	}
	i.Withheld = fmt.Sprintf("the guard holds, or may hold, %s, and %v", what, l.alone.fault)
	i.Verdict = recover.VerdictUnknown
	i.Reasons = append(i.Reasons, i.Withheld)
	i.Possible = append(i.Possible, "leave it as it is, and end the guard, which hands what it holds to the keeper if it still can, or "+
		"takes it up again as it starts (systemctl restart os-rescue-guard), then scan again")
	return nil
}

func hasInode(list []candidate, inode recover.Inode) bool {
	return slices.ContainsFunc(list, func(c candidate) bool { return c.Inode() == inode })
}
