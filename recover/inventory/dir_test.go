package inventory

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestWhatTheGuardWritesAScanReads(t *testing.T) {
	state := t.TempDir()
	dir := In(state)
	if all, err := dir.Records(); all != nil || err != nil {
		t.Errorf("where no guard has ever run: %v, %v", all, err)
	}
	if xml, err := dir.Definition(recovertest.UUID(1)); xml != "" || err != nil {
		t.Errorf("where no guard has ever run: %q, %v", xml, err)
	}
	recovertest.Must(t, dir.Create())
	recovertest.Must(t, dir.Create())
	want := Record{Domain: recover.Domain{UUID: recovertest.UUID(1), Name: "instance-1"}, Definition: "<domain/>",
		Small: map[string]string{"/i/disk.info": "{}"}}
	recovertest.Must(t, dir.Write(want))
	recovertest.Must(t, os.WriteFile(dir.File("holds.json"), []byte("{}"), 0o600)) // is no record
	all, err := dir.Records()
	recovertest.Must(t, err)
	if diff := cmp.Diff(map[string]Record{recovertest.UUID(1): want}, all); diff != "" {
		t.Error(diff)
	}
	if xml, err := dir.Definition(recovertest.UUID(1)); xml != want.Definition || err != nil {
		t.Errorf("the definition is %q, %v", xml, err)
	}
	info, err := os.Stat(filepath.Join(state, "guard", recovertest.UUID(1)+".json"))
	recovertest.Must(t, err)
	if info.Mode() != 0o600 {
		t.Errorf("secrets in a file of mode %s", info.Mode())
	}
	recovertest.Must(t, dir.Write(want)) // once more: it is there already
	if again, err := os.Stat(dir.File(recovertest.UUID(1) + ".json")); err != nil || !os.SameFile(info, again) {
		t.Errorf("it was written anew: %v", err)
	}
	recovertest.Must(t, dir.Remove(recovertest.UUID(1)))
	recovertest.Must(t, dir.Remove(recovertest.UUID(1)))
	if all, err := dir.Records(); len(all) != 0 || err != nil {
		t.Errorf("after the removal: %v, %v", all, err)
	}
}

func TestARecordOfAnotherInstanceIsRefusedAndTheOthersAreRead(t *testing.T) {
	dir := In(t.TempDir())
	recovertest.Must(t, dir.Create())
	recovertest.Must(t, dir.Write(Record{Domain: recover.Domain{UUID: recovertest.UUID(1)}}))
	data, err := os.ReadFile(dir.File(recovertest.UUID(1) + ".json"))
	recovertest.Must(t, err)
	recovertest.Must(t, os.WriteFile(dir.File(recovertest.UUID(2)+".json"), data, 0o600))
	all, err := dir.Records()
	if err == nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := dir.Definition(recovertest.UUID(2)); err == nil {
		t.Error("the definition of another instance was given out")
	}
}
