package recover

import (
	"fmt"
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
	// As is the format in which a start would take Open, when that is another one.
	As       string `json:"as,omitempty"`
	Writable bool   `json:"writable"` // the guest writes Open
}

// IsSerious is true when a start would not give the guest every byte that it has
// written, or would fail.
func (d Divergence) IsSerious() bool { return d.Writable || d.Open == "" }

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
	case d.Open == "":
		return fmt.Sprintf("%s needs %s as %s, which does not exist, and which the guest does not have", start, d.Next, d.Target)
	case d.As != "":
		return fmt.Sprintf("the guest %s %s as %s, but %s would take it for a %s image", use, d.Open, d.Target, start, d.As)
	case d.Next == "":
		return fmt.Sprintf("the guest %s %s as %s, but %s would not give it that disk", use, d.Open, d.Target, start)
	case d.Below:
		return fmt.Sprintf("the guest %s %s as %s, but %s would open %s, the file below it, without what was written since",
			use, d.Open, d.Target, start, d.Next)
	default:
		return fmt.Sprintf("the guest %s %s as %s, but %s would open %s", use, d.Open, d.Target, start, d.Next)
	}
}

// Cure says how the two become the same again, when the files of the domain of that name
// are in their place.
func (d Divergence) Cure(domain string) string {
	libvirt := slices.Contains(d.By, StarterLibvirt)
	switch {
	case d.Open == "":
		return fmt.Sprintf("bring %s back, or take %s out of the persistent definition: virsh detach-disk %s %s --config",
			d.Next, d.Target, domain, d.Target)
	case d.Target == "nvram" || d.As != "":
		return fmt.Sprintf("correct %s in the persistent definition: virsh edit %s", d.Target, domain)
	case d.Below:
		// Without --base everything would be merged into the last file of the chain, which
		// other instances share.
		return fmt.Sprintf("virsh blockcommit %s %s --base %s --active --pivot --wait merges %s into %s while the guest runs",
			domain, d.Target, d.Next, d.Open, d.Next)
	case !libvirt && d.Next == "":
		return fmt.Sprintf("give %s to Nova as a volume, or keep the instance from being started through Nova", d.Open)
	case !libvirt:
		return fmt.Sprintf("move the guest onto %s, the file that Nova opens, while it runs (virsh blockcopy %s %s, "+
			"which overwrites what stands there: look at that first)", d.Next, domain, d.Target)
	default:
		return fmt.Sprintf("name %s as %s in the persistent definition (virsh edit %s)", d.Open, d.Target, domain)
	}
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
// opens is another question: a conflict about that alone does not count.
func (i Instance) IsWhole() bool {
	switch i.Verdict {
	case VerdictIntact, VerdictUnaffected:
		return true
	case VerdictConflict:
		return len(i.NextStart) > 0 && !slices.ContainsFunc(i.Files, func(f File) bool {
			away := f.State != FilePresent && !f.Proven && (f.Role != RoleConsoleLog || f.State != FileMissing)
			return f.Role != RoleOther && (away || f.Unseen)
		})
	}
	return false
}
