package recover

import (
	"fmt"
)

// judge sums a scanned instance up in a verdict with its reasons.
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
			// Nobody ever holds it: it is made anew from the definition.
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
		i.Possible = append(i.Possible, "nothing is lost: bring the files back to their paths (mount, or move), then scan again; os-rescue does not act on them")
	case len(replaced) > 0:
		i.Verdict = VerdictConflict
		say(replaced, "was deleted")
		i.Possible = append(i.Possible, "a run compares the two and keeps an identical one; --replace-existing moves another one aside, never deletes it")
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

// explainLost says for each instance with lost files what is still possible,
// which needs a look at all the others: a shared backing file may live on there.
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
			switch other := held[f.Path]; {
			case f.Role == RoleBacking && other != "":
				i.Possible = append(i.Possible, fmt.Sprintf("%s is held by %s and comes back with its rescue", f.Path, other))
			case f.Role == RoleBacking:
				i.Possible = append(i.Possible, fmt.Sprintf("%s is a cached image: Nova can fetch it again from Glance if the image still exists", f.Path))
			case f.Role == RoleConfigDrive:
				i.Possible = append(i.Possible, fmt.Sprintf("%s can't be made again by a hard reboot: restore it from a backup, or rebuild the instance", f.Path))
			default:
				i.Possible = append(i.Possible, fmt.Sprintf("%s: restore it from a backup or a snapshot (os-rescue restore --from DIR); without one its data is gone with its last holder, and a rebuild or an undelete of the file system is all that is left", f.Path))
			}
		}
	}
}
