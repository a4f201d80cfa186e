package recover

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhatTheGuardWritesAScanReads(t *testing.T) {
	state := t.TempDir()
	dir := guardDirIn(state)
	if all, err := dir.records(); all != nil || err != nil {
		t.Errorf("where no guard has ever run: %v, %v", all, err)
	}
	if xml, err := dir.definition(testUUID(1)); xml != "" || err != nil {
		t.Errorf("where no guard has ever run: %q, %v", xml, err)
	}
	must(t, dir.create())
	must(t, dir.create())
	want := guardRecord{Domain: Domain{UUID: testUUID(1), Name: "instance-1"}, Definition: "<domain/>",
		Small: map[string]string{"/i/disk.info": "{}"}}
	must(t, dir.write(want))
	must(t, os.WriteFile(dir.file("holds.json"), []byte("{}"), 0o600)) // is no record
	all, err := dir.records()
	must(t, err)
	if diff := cmp.Diff(map[string]guardRecord{testUUID(1): want}, all); diff != "" {
		t.Error(diff)
	}
	if xml, err := dir.definition(testUUID(1)); xml != want.Definition || err != nil {
		t.Errorf("the definition is %q, %v", xml, err)
	}
	info, err := os.Stat(filepath.Join(state, "guard", testUUID(1)+".json"))
	must(t, err)
	if info.Mode() != 0o600 {
		t.Errorf("secrets in a file of mode %s", info.Mode())
	}
	must(t, dir.write(want)) // once more: it is there already
	if again, err := os.Stat(dir.file(testUUID(1) + ".json")); err != nil || !os.SameFile(info, again) {
		t.Errorf("it was written anew: %v", err)
	}
	must(t, dir.remove(testUUID(1)))
	must(t, dir.remove(testUUID(1)))
	if all, err := dir.records(); len(all) != 0 || err != nil {
		t.Errorf("after the removal: %v, %v", all, err)
	}
}

func TestARecordOfAnotherInstanceIsRefusedAndTheOthersAreRead(t *testing.T) {
	dir := guardDirIn(t.TempDir())
	must(t, dir.create())
	must(t, dir.write(guardRecord{Domain: Domain{UUID: testUUID(1)}}))
	data, err := os.ReadFile(dir.file(testUUID(1) + ".json"))
	must(t, err)
	must(t, os.WriteFile(dir.file(testUUID(2)+".json"), data, 0o600))
	all, err := dir.records()
	if err == nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := dir.definition(testUUID(2)); err == nil {
		t.Error("the definition of another instance was given out")
	}
}
