package verdict

import "github.com/os-rescue/os-rescue/recover"

// handsOff says why a rescue in mode reboot would leave an instance alone; empty when it
// would not.
func handsOff(i recover.Instance) string {
	action := recover.ActionPutBack
	var lost []string
	for _, f := range i.Files {
		if !f.Lost() {
			continue
		}
		lost = append(lost, f.Path)
		if f.Writable {
			action = recover.ActionReboot
		}
	}
	return recover.HandsOff(i.Definition, action, lost)
}
