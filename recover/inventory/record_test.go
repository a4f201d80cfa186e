package inventory

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestSmallFilesAreReadAndStayWhenTheyAreDeleted(t *testing.T) {
	dir := t.TempDir()
	root, err := beneath.OpenRoot("/")
	recovertest.Must(t, err)
	defer root.Close()
	info, unrescue := filepath.Join(dir, "disk.info"), filepath.Join(dir, "unrescue.xml")
	recovertest.Must(t, os.WriteFile(info, []byte("one"), 0o600))
	recovertest.Must(t, os.WriteFile(unrescue, []byte("two"), 0o600))
	recovertest.Must(t, os.WriteFile(filepath.Join(dir, "disk"), []byte("large"), 0o600))
	d, err := root.OpenDir(dir)
	recovertest.Must(t, err)
	defer d.Close()
	var r Record
	r.AddSmall(ReadSmall(d))
	want := map[string]string{info: "one", unrescue: "two"}
	if !maps.Equal(r.Small, want) {
		t.Fatalf("read: %v", r.Small)
	}
	recovertest.Must(t, os.Remove(info))
	recovertest.Must(t, os.WriteFile(unrescue, nil, 0o600))
	r.AddSmall(ReadSmall(d))
	if !maps.Equal(r.Small, want) {
		t.Errorf("after the deletion: %v", r.Small)
	}
	recovertest.Must(t, os.WriteFile(info, []byte(strings.Repeat("x", maxSmall+1)), 0o600))
	r.AddSmall(ReadSmall(d))
	r.DropSmall("unrescue.xml")
	if !maps.Equal(r.Small, map[string]string{info: "one"}) {
		t.Errorf("of a file that is too large, and one that was dropped: %v", r.Small)
	}
}

func FuzzParseGuardRecord(f *testing.F) {
	const head = `{"domain":{"uuid":"0b8b7d5e-3a51-4a1c-a0b5-000000000001","disks":`
	f.Add([]byte(head + `[{"target":"vda","chain":[{"source":"file","path":"/x"}]}]}}`))
	f.Add([]byte(head + `[{}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parse(recovertest.UUID(1), data)
		if err != nil {
			return
		}
		d := r.AsOff()
		if !strings.EqualFold(d.UUID, recovertest.UUID(1)) || d.State != recover.StateShutOff || d.PID != 0 {
			t.Errorf("it is taken for %+v", d)
		}
		for _, disk := range d.Disks {
			if len(disk.Chain) == 0 {
				t.Error("a disk has no image")
			}
		}
	})
}
