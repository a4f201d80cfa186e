package recover

import "fmt"

// judge gives a scanned instance its verdict and the reasons for it.
func judge(i *Instance) {
	var lost, displaced, replaced, missing []File
	for _, f := range i.Files {
		switch {
		case f.Role == RoleOther:
		case f.State == FileDisplaced:
			displaced = append(displaced, f)
		case f.State == FileReplaced && !f.Proven:
			replaced = append(replaced, f)
		case f.State == FileDeleted:
			lost = append(lost, f)
		case f.State == FileMissing && f.Role == RoleDiskInfo:
			// No process ever holds it: it is made anew from the definition.
			lost = append(lost, f)
		case f.State == FileMissing && f.Role == RoleConsoleLog:
			// libvirt makes it anew at the next start.
		case f.State == FileMissing:
			missing = append(missing, f)
		}
	}
	say := func(files []File, text string) {
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
		i.Verdict = VerdictLost
		say(missing, "is gone and nobody holds it")
		say(displaced, "is displaced")
		say(replaced, "was deleted")
	case len(displaced) > 0:
		i.Verdict = VerdictDisplaced
		say(displaced, "is displaced")
		i.Possible = append(i.Possible, "nothing is lost: bring the files back to their paths (mount, or move), then scan again; "+
			"os-rescue does not act on them")
	case len(replaced) > 0:
		i.Verdict = VerdictConflict
		say(replaced, "was deleted")
		i.Possible = append(i.Possible, "a run compares the two files and keeps an identical one; "+
			"--replace-existing moves a different one aside and never deletes it")
	case len(lost) > 0:
		i.Verdict = VerdictRecoverable
	case !hasLocalDisk(i.domain):
		i.Verdict = VerdictUnaffected
	default:
		i.Verdict = VerdictIntact
	}
	if reason := handsOff(i.domain); reason != "" && i.Verdict != VerdictIntact && i.Verdict != VerdictUnaffected {
		i.Reasons = append(i.Reasons, reason)
	}
}

// explainLost says what is still possible for each lost instance. It looks at all the
// others too: another instance's QEMU may still hold a shared backing file.
func explainLost(all []Instance) {
	held := map[string]string{}
	for _, i := range all {
		for _, f := range i.Files {
			if f.Role == RoleBacking && len(f.Holders) > 0 {
				held[f.Path] = i.Domain
			}
		}
	}
	for n := range all {
		i := &all[n]
		if i.Verdict != VerdictLost {
			continue
		}
		for _, f := range i.Files {
			if f.State != FileMissing || f.Role == RoleConsoleLog || f.Role == RoleDiskInfo {
				continue
			}
			i.Possible = append(i.Possible, remedy(f, held[f.Path]))
		}
	}
}

// remedy says what can still be done about a missing file; other is the domain that
// holds it, if any does.
func remedy(f File, other string) string {
	switch {
	case f.Role == RoleBacking && other != "":
		return fmt.Sprintf("%s is held by %s: rescuing that instance brings it back", f.Path, other)
	case f.Role == RoleBacking:
		return fmt.Sprintf("%s is a cached image: Nova can fetch it again from Glance if the image still exists", f.Path)
	case f.Role == RoleConfigDrive:
		return fmt.Sprintf("a hard reboot can't make %s again: restore it from a backup, or rebuild the instance", f.Path)
	default:
		return fmt.Sprintf("%s: restore it from a backup or a snapshot (os-rescue restore --from DIR); "+
			"without one its data went with its last holder, and only a rebuild or an undelete on the file system is left", f.Path)
	}
}
