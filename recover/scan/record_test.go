package scan

import (
	"os"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

// A scan takes any record that a guard's directory gives out.
func FuzzGuardRecord(f *testing.F) {
	dir := inventory.In(f.TempDir())
	recovertest.Must(f, dir.Create())
	file := dir.File(recovertest.UUID(1) + ".json")
	const head = `{"domain":{"uuid":"0b8b7d5e-3a51-4a1c-a0b5-000000000001","disks":`
	f.Add([]byte(head + `[{"target":"vda","chain":[{"source":"file","path":"/x"}]}]}}`))
	f.Add([]byte(head + `[{}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		recovertest.Must(t, os.WriteFile(file, data, 0o600))
		all, err := dir.Records()
		if err != nil {
			return
		}
		d := all[recovertest.UUID(1)].AsOff()
		ExpectedFiles(d, "/var/lib/nova/instances")
		recover.HandsOff(d, recover.ActionReboot, []string{"/x"})
	})
}
