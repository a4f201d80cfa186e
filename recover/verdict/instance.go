package verdict

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// Instance gives an instance whose files were looked at its verdict, the reasons for it and
// what is possible now: it sets Verdict, and adds to Reasons and Possible. The worst file
// decides, and then what its next start opens (i.NextStart). i.Files have their states and
// remedies; those of recover.RoleOther that its QEMU has open, and i.Nameless, are deleted
// files that could not be matched to any of the others.
func Instance(i *recover.Instance) {
	i.Verdict = recover.VerdictIntact
	if !hasLocalDisk(i.Definition) {
		i.Verdict = recover.VerdictUnaffected
	}
	for _, f := range i.Files {
		if f.Role == recover.RoleOther {
			continue
		}
		v, text := ofFile(f)
		if text != "" {
			i.Reasons = append(i.Reasons, sentence(f, text))
		}
		// What can be made anew went the way of the files that were moved.
		if KindOf(f.Role) == Made && i.Verdict == recover.VerdictDisplaced {
			continue
		}
		if rank(v) > rank(i.Verdict) {
			i.Verdict = v
		}
	}
	if i.Verdict == recover.VerdictRecoverable && slices.ContainsFunc(i.Files, needsMount) {
		i.Verdict = recover.VerdictConflict // no run can bring it back before a person has done that
	}
	judgeNameless(i)
	if advice := possible(*i); advice != "" {
		i.Possible = append(i.Possible, advice)
	}
	judgeSuperseded(i)
	judgeUnseen(i)
	judgeNextStart(i)
	harmless := i.Verdict == recover.VerdictIntact || i.Verdict == recover.VerdictUnaffected
	if reason := handsOff(*i); reason != "" && !harmless {
		i.Reasons = append(i.Reasons, reason)
	}
}

// needsMount is true for a file that a person must bring back into sight.
func needsMount(f recover.File) bool { return f.Remedy == recover.RemedyMount }

func isSplit(f recover.File) bool { return f.Split }

// isSought is true for a file that one of the open files may be: --map can say which.
func isSought(f recover.File) bool {
	return f.State != recover.FilePresent && !f.Split && !f.Temporary && KindOf(f.Role) == Essential && f.Role != recover.RoleOther
}

// isDisplacedByAnother is true for a file that has a name, while another file has its own.
func isDisplacedByAnother(f recover.File) bool {
	return f.State == recover.FileDisplaced && f.Remedy == recover.RemedyReplace
}

// ofFile returns what one file makes of its instance, and for people, what happened to the
// file; no text for a file that the list of files explains well enough.
func ofFile(f recover.File) (v recover.Verdict, text string) {
	if f.Proven || f.Temporary {
		return recover.VerdictUnaffected, ""
	}
	if f.Split {
		return recover.VerdictUnknown, "keeps the guest's data in another file"
	}
	switch f.State {
	case recover.FilePresent:
		if f.Unseen {
			return recover.VerdictConflict, "is not where the instance would be started next: only its QEMU sees it"
		}
	case recover.FileUnknown:
		if f.Unusable() {
			return recover.VerdictConflict, "is nothing that the instance could be started from"
		}
		if f.Overwritten() {
			return recover.VerdictUnknown, "was overwritten or truncated in place"
		}
		return recover.VerdictUnknown, "can't be judged"
	case recover.FileMissing:
		switch f.Remedy {
		case recover.RemedyRestore:
			return recover.VerdictLost, "is gone and nobody holds it"
		case recover.RemedyMake:
			if f.MadeAtStart() {
				return recover.VerdictUnaffected, "is not there"
			}
			return recover.VerdictRecoverable, ""
		}
		return recover.VerdictUnaffected, ""
	case recover.FileReplaced:
		return recover.VerdictConflict, "was deleted"
	case recover.FileDeleted:
		if f.Remedy == recover.RemedyMount {
			return recover.VerdictConflict, "was deleted"
		}
		return recover.VerdictRecoverable, ""
	case recover.FileDisplaced:
		switch f.Remedy {
		case recover.RemedyReplace:
			return recover.VerdictConflict, "is displaced"
		case recover.RemedyLinkBack:
			return recover.VerdictRecoverable, ""
		}
		return recover.VerdictDisplaced, "is displaced"
	}
	return recover.VerdictUnaffected, ""
}

func sentence(f recover.File, text string) string {
	if f.Reason != "" {
		text += ": " + f.Reason
	}
	return f.Path + " " + text
}

// rank orders verdicts by how bad they are for the instance's next start. What is unknown
// is worse than what a person or a run can put in order.
func rank(v recover.Verdict) int {
	return slices.Index([]recover.Verdict{
		recover.VerdictUnaffected,
		recover.VerdictIntact,
		recover.VerdictDisplaced,
		recover.VerdictRecoverable,
		recover.VerdictConflict,
		recover.VerdictUnknown,
		recover.VerdictLost,
	}, v)
}

// judgeNameless takes deleted files into account that QEMU has open and that belong to none
// of the instance's files. While there are such, no comfortable word is said, and none that
// gives the data up.
func judgeNameless(i *recover.Instance) {
	strays := i.Strays()
	if len(strays) == 0 {
		return
	}
	what := "its QEMU has a deleted file open that could not be matched to a disk"
	if i.PID == 0 {
		what = "a deleted file is held that may be one of its disks"
	}
	for _, f := range strays {
		i.Reasons = append(i.Reasons, fmt.Sprintf("%s: %s%s", what, f.Path, descriptors(f)))
	}
	switch i.Verdict {
	case recover.VerdictLost, recover.VerdictIntact, recover.VerdictUnaffected, recover.VerdictDisplaced:
		i.Verdict = recover.VerdictUnknown
	}
}

// judgeSuperseded takes what is held of an instance into account that runs on other files
// than it has lost: nobody has proven which of them are the newer ones.
func judgeSuperseded(i *recover.Instance) {
	if len(i.Superseded) == 0 {
		return
	}
	i.Reasons = append(i.Reasons, i.AboutSuperseded()...)
	i.Possible = append(i.Possible, i.CureOfSuperseded())
	if rank(i.Verdict) < rank(recover.VerdictConflict) {
		i.Verdict = recover.VerdictConflict
	}
}

// judgeUnseen takes disks of a domain that is off into account of which nobody knows whether they are
// files, and are there (a storage pool's volumes): while it runs, its QEMU has them open. A
// medium that the guest only reads is nobody's loss.
func judgeUnseen(i *recover.Instance) {
	if i.PID != 0 || i.Verdict != recover.VerdictIntact && i.Verdict != recover.VerdictUnaffected {
		return
	}
	for _, disk := range i.Definition.Disks {
		unseen := slices.ContainsFunc(disk.Chain, func(m recover.Image) bool { return m.Source == recover.SourceOther })
		if !unseen || disk.ReadOnly || len(disk.LostAtEnd) == 0 {
			continue
		}
		i.Verdict = recover.VerdictUnknown
		i.Reasons = append(i.Reasons, fmt.Sprintf("disk %s: %s", disk.Target, strings.Join(disk.LostAtEnd, ", ")))
	}
	if i.Verdict == recover.VerdictUnknown {
		i.Possible = append(i.Possible, "nothing was touched, and no run brings such a disk back: look whether it is there before it is "+
			"started (virsh domblklist "+i.Domain+", virsh vol-info VOLUME --pool POOL)")
	}
}

// descriptors names the descriptors of a held file, for --map.
func descriptors(f recover.File) string {
	text := ""
	for _, h := range f.Holders {
		text += fmt.Sprintf(" (%s %d:%d)", h.Process, h.PID, h.FD)
	}
	return text
}

// possible says what can be done for an instance as a whole; empty where its files or its
// verdict say it.
func possible(i recover.Instance) string {
	switch i.Verdict {
	case recover.VerdictUnknown:
		if i.PID == 0 && len(i.Nameless) > 0 {
			return "nothing was touched, and what is held stays held: look which file is which disk (qemu-img info /proc/PID/fd/FD), and copy " +
				"each to its path while the domain is off (cp --sparse=always /proc/PID/fd/FD PATH)"
		}
		if i.PID == 0 {
			return "nothing was touched, and nothing is ended: look at what is named above, then scan again"
		}
		if slices.ContainsFunc(i.Files, recover.File.Overwritten) {
			return "nothing but a backup or a snapshot brings back what was overwritten (os-rescue restore --from DIR). What the guest has in " +
				"memory, and can still read, is all that is left: do not stop, reboot or migrate it before that is saved from inside the guest; " +
				"then shut it off, and restore it with --replace-existing"
		}
		if !slices.ContainsFunc(i.Files, isSought) && (len(i.Strays()) > 0 || slices.ContainsFunc(i.Files, isSplit)) {
			return "nothing was touched, and nothing may stop, reboot or migrate it: what only its QEMU has ends with that. Such a file can be " +
				"copied from its descriptor while the guest is paused: virsh suspend " + i.Domain + "; dd bs=1M iflag=direct conv=sparse " +
				"if=/proc/" + strconv.Itoa(i.PID) + "/fd/FD of=COPY; virsh resume " + i.Domain
		}
		return "nothing was touched, and what is open stays open: look at the files named above; " +
			"--map PATH=PID:FD says which open file is which"
	case recover.VerdictDisplaced:
		if i.PID != 0 && slices.ContainsFunc(i.Files, needsMount) {
			return "its QEMU has all of it open: bring the files back to their paths (mount, or move), then scan again; what can't be brought " +
				"back (a file system that is gone) os-rescue backup --to DIR copies as long as that QEMU lives"
		}
		return "nothing is deleted: bring the files back to their paths (mount, or move), then scan again"
	case recover.VerdictConflict:
		if slices.ContainsFunc(i.Files, func(f recover.File) bool { return f.Unseen }) {
			return "mount what its QEMU sees also where libvirt starts it, then scan again: until then nothing may stop it"
		}
		if slices.ContainsFunc(i.Files, needsMount) {
			return "bring back into sight what is named above (mount what belongs there, unmount what hides it, correct a symlink), " +
				"then scan again: the deleted files stay open meanwhile"
		}
		if slices.ContainsFunc(i.Files, recover.File.Unusable) {
			return "do not start it; bring the file back from a backup or a snapshot: os-rescue restore --from DIR --replace-existing moves what " +
				"stands there aside. A cached image (_base) that was moved away is fetched again by Nova, if Glance still has it"
		}
		if slices.ContainsFunc(i.Files, isDisplacedByAnother) {
			advice := "neither a run nor --replace-existing touches a file that was renamed while another stands at its path: see above what " +
				"brings it back, then scan again"
			if i.PID == 0 {
				advice += "; if what stands there is right, start the guest on it: virsh start " + i.Domain
			}
			return advice
		}
		advice := "a run compares the two files and keeps an identical one; " +
			"--replace-existing moves a different one aside and never deletes it"
		if i.PID == 0 && slices.ContainsFunc(i.Files, func(f recover.File) bool { return f.State == recover.FileReplaced && f.Lost() }) {
			advice += "; if the one at the path is right: os-rescue guard release " + i.UUID
		}
		return advice
	}
	return ""
}

// hasLocalDisk is true when any image of the domain is a file.
func hasLocalDisk(d recover.Domain) bool {
	return slices.ContainsFunc(d.Disks, func(disk recover.Disk) bool {
		return slices.ContainsFunc(disk.Chain, func(m recover.Image) bool { return m.Source == recover.SourceFile })
	})
}
