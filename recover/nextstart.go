package recover

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Starter is who starts a guest, and so decides which files it gets.
type Starter string

// The starters.
const (
	// StarterLibvirt starts a domain by its persistent definition: virsh start, a run
	// without Nova, the host's own boot.
	StarterLibvirt Starter = "libvirt"
	// StarterNova defines the domain anew from Nova's database, at every start and reboot
	// that is asked of Nova (nova/virt/libvirt/driver.py, _hard_reboot).
	StarterNova Starter = "nova"
)

// Divergence is a disk that a guest would not have after its next start as it has it now.
type Divergence struct {
	Target string    `json:"target"`         // vda; "nvram" for the UEFI variable store
	By     []Starter `json:"by"`             // whose start would do that
	Open   string    `json:"open,omitempty"` // the file that the guest has; empty for one that only the next start has
	Next   string    `json:"next,omitempty"` // the file that it would have then; empty for none
	// Below is true when Next is a backing file of Open: the guest would go on without
	// all that was written since a snapshot, and spoil Open by writing below it.
	Below bool `json:"below,omitempty"`
	// Apart is true when the guest has a deleted file open as Next, for writing: what is merged while it
	// runs goes into that one, whatever is put back at the path.
	Apart bool `json:"apart,omitempty"`
	// As is the format in which a start would take Open, when that is another one.
	As       string `json:"as,omitempty"`
	Writable bool   `json:"writable"` // the guest writes Open
	// Over is the image whose backing file Open and Next are; empty for the top of a disk.
	Over string `json:"over,omitempty"`
	Gone bool   `json:"gone,omitempty"` // Next does not exist: the start would fail
	// Saved is true when Next is the file of a guest whose memory is saved, and Open the one
	// that the domain's definition names, empty for none: a start through libvirt goes on with the
	// memory, and one through Nova discards it. Below is true then when Open is a backing file of Next.
	Saved bool `json:"saved,omitempty"`
}

// IsSerious is true when a start would not give the guest every byte that it has, or would
// fail. Another medium in a drive is neither.
func (d Divergence) IsSerious() bool {
	return d.Writable || d.Open == "" && !d.Saved || d.Over != "" || d.Gone
}

// Sentence says what would happen.
func (d Divergence) Sentence() string {
	starters := make([]string, len(d.By))
	for n, by := range d.By {
		starters[n] = map[Starter]string{StarterLibvirt: "libvirt", StarterNova: "Nova"}[by]
	}
	start := "a start through " + strings.Join(starters, " or ")
	use := "reads"
	if d.Writable {
		use = "writes"
	}
	switch {
	case d.Over != "":
		return d.sentenceBelow(start)
	case d.Saved:
		return d.sentenceSaved()
	case d.Open == "":
		return fmt.Sprintf("%s needs %s as %s, which does not exist, and which the guest does not have", start, d.Next, d.Target)
	case d.As != "":
		return fmt.Sprintf("the guest %s %s as %s, but %s would take it for a %s image", use, d.Open, d.Target, start, d.As)
	case d.Next == "":
		return fmt.Sprintf("the guest %s %s as %s, but %s would not give it that disk", use, d.Open, d.Target, start)
	case d.Below:
		return fmt.Sprintf("the guest %s %s as %s, but %s would open %s, the file below it, without what was written since",
			use, d.Open, d.Target, start, d.Next)
	case d.Gone:
		return fmt.Sprintf("the guest %s %s as %s, but %s would fail: it needs %s, which does not exist", use, d.Open, d.Target, start, d.Next)
	default:
		return fmt.Sprintf("the guest %s %s as %s, but %s would open %s", use, d.Open, d.Target, start, d.Next)
	}
}

// sentenceBelow says what would happen below a disk's top.
func (d Divergence) sentenceBelow(start string) string {
	has, next := "has "+d.Open+" below "+d.Over, "would put "+d.Next+" there"
	if d.Open == "" {
		has = "has nothing below " + d.Over
	}
	switch {
	case d.As != "":
		next = fmt.Sprintf("would take it for a %s image", d.As)
	case d.Next == "":
		next = "would put nothing there"
	}
	return fmt.Sprintf("the guest %s (%s), but %s %s", has, d.Target, start, next)
}

// sentenceSaved says what would happen with a guest whose memory is saved.
func (d Divergence) sentenceSaved() string {
	saved := fmt.Sprintf("its memory is saved (virsh managedsave) with %s as %s", d.Next, d.Target)
	defined := "its definition names " + d.Open
	if d.Open == "" {
		defined = "its definition has no such disk"
	}
	if d.Below {
		defined += ", the file below it, without what was written since"
	}
	var starts []string
	if slices.Contains(d.By, StarterLibvirt) {
		does := "open that"
		if d.Gone {
			does = "fail"
		}
		starts = append(starts, "a start through libvirt would "+does)
	}
	if slices.Contains(d.By, StarterNova) {
		starts = append(starts, "a start through Nova would discard the memory and open the files that Nova names, and not that one")
	}
	if d.Gone {
		saved += ", which does not exist"
	}
	return fmt.Sprintf("%s: %s; %s", saved, strings.Join(starts, ", "), defined)
}

// cureSaved says which of the two is to be changed. The memory of a guest fits only the disk
// that it was saved with.
func (d Divergence) cureSaved(domain string) string {
	discard := fmt.Sprintf("else virsh managedsave-remove %s discards the guest's memory for good, as a start or hard reboot through Nova "+
		"does, and it boots from its definition", domain)
	if d.Below {
		if d.Gone {
			return fmt.Sprintf("bring %s back: what was written since the snapshot is in it alone, and a boot from %s spoils it",
				d.Next, d.Open)
		}
		return fmt.Sprintf("name %s in the definition too (virsh edit %s); without that neither discard the memory (virsh managedsave-remove, "+
			"or a start or hard reboot through Nova) nor boot it: what was written since the snapshot is in %s alone, and a boot from %s spoils it",
			d.Next, domain, d.Next, d.Open)
	}
	edit := fmt.Sprintf("if %s is that very file under another name, name it in the saved image (virsh managedsave-edit %s)", d.Open, domain)
	switch {
	case d.Gone && d.Open == "":
		return fmt.Sprintf("bring %s back; %s", d.Next, discard)
	case d.Gone:
		return fmt.Sprintf("bring %s back; or, %s; %s", d.Next, edit, discard)
	case d.Open == "":
		return fmt.Sprintf("if the guest is to go on with it, give it to the definition too (virsh edit %s); %s", domain, discard)
	}
	return fmt.Sprintf("if the guest is to go on with %s, name it in the definition too (virsh edit %s); %s; %s",
		d.Next, domain, edit, discard)
}

// Cure says how the two become the same again, when the files of the domain of that name
// are in their place.
func (d Divergence) Cure(domain string) string {
	libvirt := slices.Contains(d.By, StarterLibvirt)
	switch {
	case d.Saved:
		return d.cureSaved(domain)
	case d.Over != "":
		return fmt.Sprintf("take <backingStore> of %s out of the persistent definition (virsh edit %s): libvirt reads from the images then "+
			"what lies below", d.Target, domain)
	case d.fetchedFor() != "":
		return fmt.Sprintf("hard reboot it through Nova, which fetches it again (os-rescue reboot --instance %s), or bring %s back",
			d.fetchedFor(), d.Next)
	case slices.Contains([]string{bootKernel, bootInitrd, bootDTB}, d.Target):
		return fmt.Sprintf("bring %s back", d.Next)
	case d.Open == "":
		return fmt.Sprintf("bring %s back, or take %s out of the persistent definition: virsh detach-disk %s %s --config",
			d.Next, d.Target, domain, d.Target)
	case d.Target == "nvram" || d.As != "":
		return fmt.Sprintf("correct %s in the persistent definition: virsh edit %s", d.Target, domain)
	case d.Below && d.Apart:
		return fmt.Sprintf("no virsh blockcommit, which would merge %s into the deleted file that the guest has open below it; when %s is back, "+
			"shut the guest down, merge the two (qemu-img commit -d %s), and start it", d.Open, d.Next, d.Open)
	case d.Below:
		// Without --base everything would be merged into the last file of the chain, which
		// other instances share.
		return fmt.Sprintf("virsh blockcommit %s %s --base %s --active --pivot --wait merges %s into %s while the guest runs",
			domain, d.Target, d.Next, d.Open, d.Next)
	case !libvirt && d.Next == "":
		return fmt.Sprintf("give %s to Nova as a volume, or keep the instance from being started through Nova", d.Open)
	case !libvirt:
		return fmt.Sprintf("move the guest onto %s, the file that Nova opens, while it runs (virsh blockcopy %s %s, "+
			"which overwrites what stands there: look at that first), and give it mode 0644: libvirt makes it 0600, and Nova reads it as its "+
			"own user before a start", d.Next, domain, d.Target)
	default:
		return fmt.Sprintf("name %s as %s in the persistent definition (virsh edit %s)", d.Open, d.Target, domain)
	}
}

// fetchedFor returns the instance for which a hard reboot through Nova fetches this boot file again:
// Nova names it in the directory of that instance (nova/virt/libvirt/driver.py,
// _fetch_instance_kernel_ramdisk). Empty for every other file.
func (d Divergence) fetchedFor() (uuid string) {
	names := map[string]string{bootKernel: "kernel", bootInitrd: "ramdisk"}
	if d.Open != "" || names[d.Target] == "" || names[d.Target] != filepath.Base(d.Next) {
		return ""
	}
	return filepath.Base(filepath.Dir(d.Next))
}

// LacksBootFilesOnly is true when all that is against the instance's next start is a kernel or
// ramdisk that a hard reboot through Nova fetches again.
func (i Instance) LacksBootFilesOnly() bool {
	if i.Verdict != VerdictConflict || !i.IsWhole() || len(i.Superseded) > 0 {
		return false
	}
	return !i.divergesBeyondBootFiles()
}

// divergesBeyondBootFiles is true when more is against the instance's next start than what a hard
// reboot through Nova fetches again.
func (i Instance) divergesBeyondBootFiles() bool {
	return slices.ContainsFunc(i.NextStart, func(d Divergence) bool { return d.IsSerious() && d.fetchedFor() != i.UUID })
}

// BeforeNextStart says what has to be done before the instance is stopped or rebooted, or, where that
// is what cures it, with which reboot; empty when nothing is against its next start.
func (i Instance) BeforeNextStart() string {
	about := i.AboutNextStart()
	if about == "" || !i.divergesBeyondBootFiles() {
		return about
	}
	return "do not stop or reboot it yet: " + about
}

// StartsElsewhere says why a start by that starter would not give the guest every byte
// that it has now, or would fail; empty when nothing is known against it.
func (i Instance) StartsElsewhere(by Starter) string {
	var why []string
	for _, d := range i.NextStart {
		if d.IsSerious() && slices.Contains(d.By, by) {
			d.By = []Starter{by}
			why = append(why, d.Sentence())
		}
	}
	return strings.Join(why, "; ")
}

// AboutNextStart says what any next start would change, and how to cure it; empty when
// nothing is known.
func (i Instance) AboutNextStart() string {
	var text []string
	for _, d := range i.NextStart {
		if d.IsSerious() {
			text = append(text, d.Sentence()+": "+d.Cure(i.Domain))
		}
	}
	return strings.Join(text, "; ")
}

// CureOfNextStart says what makes its next start give the instance what it has now.
func (i Instance) CureOfNextStart() string {
	var cures []string
	for _, d := range i.NextStart {
		if d.IsSerious() {
			cures = append(cures, d.Cure(i.Domain))
		}
	}
	return strings.Join(cures, "; ")
}

// IsWhole is true when every file of the instance is in its place. What its next start
// opens, and what is held of earlier files of it, is another question: a conflict about that
// alone does not count.
func (i Instance) IsWhole() bool {
	switch i.Verdict {
	case VerdictIntact, VerdictUnaffected:
		return true
	case VerdictConflict:
		return len(i.NextStart)+len(i.Superseded) > 0 && i.hasAllFiles()
	case VerdictUnknown:
		return i.Withheld != "" && i.PID != 0 && len(i.Strays()) == 0 && i.hasAllFiles()
	}
	return false
}

func (i Instance) hasAllFiles() bool {
	return !slices.ContainsFunc(i.Files, func(f File) bool {
		away := f.State != FilePresent && !f.Proven && !f.MadeAtStart()
		return f.Role != RoleOther && !f.Temporary && (away || f.Unseen)
	})
}
