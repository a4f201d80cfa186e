package recover

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover/beneath"
)

func TestSmallFilesAreReadAndStayWhenTheyAreDeleted(t *testing.T) {
	dir := t.TempDir()
	root, err := beneath.OpenRoot("/")
	must(t, err)
	defer root.Close()
	info, unrescue := filepath.Join(dir, "disk.info"), filepath.Join(dir, "unrescue.xml")
	must(t, os.WriteFile(info, []byte("one"), 0o600))
	must(t, os.WriteFile(unrescue, []byte("two"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "disk"), []byte("large"), 0o600))
	d, err := root.OpenDir(dir)
	must(t, err)
	defer d.Close()
	var r guardRecord
	r.addSmall(readSmall(d))
	want := map[string]string{info: "one", unrescue: "two"}
	if !maps.Equal(r.Small, want) {
		t.Fatalf("read: %v", r.Small)
	}
	must(t, os.Remove(info))
	must(t, os.WriteFile(unrescue, nil, 0o600))
	r.addSmall(readSmall(d))
	if !maps.Equal(r.Small, want) {
		t.Errorf("after the deletion: %v", r.Small)
	}
	must(t, os.WriteFile(info, []byte(strings.Repeat("x", maxSmall+1)), 0o600))
	r.addSmall(readSmall(d))
	r.dropSmall("unrescue.xml")
	if !maps.Equal(r.Small, map[string]string{info: "one"}) {
		t.Errorf("of a file that is too large, and one that was dropped: %v", r.Small)
	}
}

func FuzzParseGuardRecord(f *testing.F) {
	const head = `{"domain":{"uuid":"0b8b7d5e-3a51-4a1c-a0b5-000000000001","disks":`
	f.Add([]byte(head + `[{"target":"vda","chain":[{"source":"file","path":"/x"}]}]}}`))
	f.Add([]byte(head + `[{}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseGuardRecord(testUUID(1), data)
		if err != nil {
			return
		}
		d := r.remembered()
		if !strings.EqualFold(d.UUID, testUUID(1)) || d.State != StateShutOff || d.PID != 0 {
			t.Errorf("it is taken for %+v", d)
		}
		for _, disk := range d.Disks {
			if len(disk.Chain) == 0 {
				t.Error("a disk has no image")
			}
		}
	})
}
