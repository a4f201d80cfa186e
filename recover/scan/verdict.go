package scan

import (
	"fmt"

	"github.com/os-rescue/os-rescue/recover"
)

// Judge gives an instance whose files were looked at its verdict, the reasons for it and
// what is possible now: it sets Verdict and adds to Reasons and Possible.
func Judge(i *recover.Instance) {
	var lost, displaced, replaced, missing []recover.File
	for _, f := range i.Files {
		switch {
		case f.Role == recover.RoleOther:
		case f.State == recover.FileDisplaced:
			displaced = append(displaced, f)
		case f.State == recover.FileReplaced && !f.Proven:
			replaced = append(replaced, f)
		case f.State == recover.FileDeleted:
			lost = append(lost, f)
		case f.State == recover.FileMissing && f.Role == recover.RoleDiskInfo:
			// No process ever holds it: it is made anew from the definition.
			lost = append(lost, f)
		case f.State == recover.FileMissing && f.Role == recover.RoleConsoleLog:
			// libvirt makes it anew at the next start.
		case f.State == recover.FileMissing:
			missing = append(missing, f)
		}
	}
	say := func(files []recover.File, text string) {
		for _, f := range files {
			reason := f.Path + " " + text
			if f.Reason != "" {
				reason += ": " + f.Reason
			}
			i.Reasons = append(i.Reasons, reason)
		}
	}
	switch {
	case len(missing) > 0:
		i.Verdict = recover.VerdictLost
		say(missing, "is gone and nobody holds it")
		say(displaced, "is displaced")
		say(replaced, "was deleted")
	case len(displaced) > 0:
		i.Verdict = recover.VerdictDisplaced
		say(displaced, "is displaced")
		i.Possible = append(i.Possible, "nothing is lost: bring the files back to their paths (mount, or move), then scan again; "+
			"os-rescue does not act on them")
	case len(replaced) > 0:
		i.Verdict = recover.VerdictConflict
		say(replaced, "was deleted")
		i.Possible = append(i.Possible, "a run compares the two files and keeps an identical one; "+
			"--replace-existing moves a different one aside and never deletes it")
	case len(lost) > 0:
		i.Verdict = recover.VerdictRecoverable
	case !hasLocalDisk(i.Definition):
		i.Verdict = recover.VerdictUnaffected
	default:
		i.Verdict = recover.VerdictIntact
	}
	if reason := recover.HandsOff(i.Definition); reason != "" && i.Verdict != recover.VerdictIntact && i.Verdict != recover.VerdictUnaffected {
		i.Reasons = append(i.Reasons, reason)
	}
}

// explainLost says what is still possible for each lost instance. It looks at all the
// others too: another instance's QEMU may still hold a shared backing file.
func explainLost(instances []recover.Instance) {
	holder := map[string]string{} // domains, by the backing file that they hold
	for _, i := range instances {
		for _, f := range i.Files {
			if f.Role == recover.RoleBacking && len(f.Holders) > 0 {
				holder[f.Path] = i.Domain
			}
		}
	}
	for n := range instances {
		i := &instances[n]
		if i.Verdict != recover.VerdictLost {
			continue
		}
		for _, f := range i.Files {
			if f.State != recover.FileMissing || f.Role == recover.RoleConsoleLog || f.Role == recover.RoleDiskInfo {
				continue
			}
			i.Possible = append(i.Possible, remedy(f, holder[f.Path]))
		}
	}
}

// remedy says what can still be done about a missing file; other is the domain that
// holds it, if any does.
func remedy(f recover.File, other string) string {
	switch {
	case f.Role == recover.RoleBacking && other != "":
		return fmt.Sprintf("%s is held by %s: rescuing that instance brings it back", f.Path, other)
	case f.Role == recover.RoleBacking:
		return fmt.Sprintf("%s is a cached image: Nova can fetch it again from Glance if the image still exists", f.Path)
	case f.Role == recover.RoleConfigDrive:
		return fmt.Sprintf("a hard reboot can't make %s again: restore it from a backup, or rebuild the instance", f.Path)
	default:
		return fmt.Sprintf("%s: restore it from a backup or a snapshot (os-rescue restore --from DIR); "+
			"without one its data went with its last holder, and only a rebuild or an undelete on the file system is left", f.Path)
	}
}
