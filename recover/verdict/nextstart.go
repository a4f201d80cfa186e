package verdict

import "github.com/os-rescue/os-rescue/recover"

// judgeNextStart holds an instance whose files have their verdict against what its next
// start opens: the differences are reasons, and one that would cost the guest something
// that it wrote is a conflict.
func judgeNextStart(i *recover.Instance) {
	serious := false
	for _, d := range i.NextStart {
		i.Reasons = append(i.Reasons, d.Sentence())
		if d.IsSerious() {
			serious = true
			i.Possible = append(i.Possible, "when its files are in place: "+d.Cure(i.Domain))
		}
	}
	switch i.Verdict {
	case recover.VerdictIntact, recover.VerdictUnaffected, recover.VerdictRecoverable:
		if serious {
			i.Verdict = recover.VerdictConflict
		}
	}
}
