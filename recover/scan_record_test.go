package recover

import (
	"os"
	"testing"
)

// A scan takes any record that a guard's directory gives out.
func FuzzGuardRecord(f *testing.F) {
	dir := guardDirIn(f.TempDir())
	must(f, dir.create())
	file := dir.file(testUUID(1) + ".json")
	const head = `{"domain":{"uuid":"0b8b7d5e-3a51-4a1c-a0b5-000000000001","disks":`
	f.Add([]byte(head + `[{"target":"vda","chain":[{"source":"file","path":"/x"}]}]}}`))
	f.Add([]byte(head + `[{}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		must(t, os.WriteFile(file, data, 0o600))
		all, err := dir.records()
		if err != nil {
			return
		}
		d := all[testUUID(1)].remembered()
		expectedFiles(d, "/var/lib/nova/instances")
		handsOff(d)
	})
}
