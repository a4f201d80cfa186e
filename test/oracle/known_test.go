package oracle

import (
	"os"
	"testing"
)

// known is a sequence on which os-rescue once said what was not true.
type known struct {
	name, script string
}

func knownFaults() []known {
	again := " remove-file/0/0 write/0/1 rescue/0/3"
	return []known{
		{"a disk that was renamed is displaced", "qcow2 : write/0/1 move-file/0/2"},
		{"a tree that was moved and then deleted is recoverable", "qcow2 : write/0/1 move-tree/0/0 remove-aside/0/0"},
		{"so is a directory", "qcow2+eph0 : write/0/1 move-dir/0/0 remove-aside/0/0"},
		{"so is a deleted disk beside a base that was moved", "qcow2 : write/0/1 move-file/0/3 remove-file/0/0"},
		{"a hard link of what was deleted is left", "qcow2 : write/0/1 hard-link/0/0 remove-dir/0/0"},
		{"a directory stands at a disk's path", "qcow2 : write/0/1 remove-file/0/0 recreate/0/1"},
		{"a dangling symlink stands there", "qcow2 : write/0/1 remove-file/0/0 recreate/0/2"},
		{"an older copy stands there before the guard runs",
			"qcow2 : backup/0/0 write/0/1 remove-dir/0/0 recreate/0/3 guard-start/0/0 stop/0/0"},
		{"a copy by hand, and the guest writes on", "qcow2 : write/0/1 remove-dir/0/0 copy-back/0/0 write/0/2 guard-start/0/0"},
		{"the next start opens the file below an overlay", "qcow2 : snapshot/0/0 write/0/1 redefine/0/0"},
		{"the same, and a run comes", "qcow2 : snapshot/0/0 remove-tree/0/0 redefine/0/0 rescue-all/0/3"},
		{"the definition names another file", "qcow2 : write/0/1 redefine/0/2"},
		{"a base is held by another instance's QEMU", "qcow2 qcow2 : stop/0/0 remove-base/0/0"},
		{"a disk that was attached is deleted", "qcow2 : attach/0/1 remove-dir/0/0 rescue/0/3"},
		{"a guard that ends hands on the base of a guest that is off",
			"qcow2 : stop/0/0 guard-start/0/0 remove-base/0/0 guard-stop/0/0"},
		{"a stranger in the place of a disk that the guard holds, the guest off",
			"qcow2 : guard-start/0/0 stop/0/0 remove-file/0/0 recreate/0/0"},
		{"a disk that was renamed is held by the guard, the guest off", "qcow2 : move-file/0/0 guard-start/0/0 stop/0/0"},
		{"a mount hides the base of a deleted disk", "qcow2 : remove-dir/0/0 mount-over/0/5"},
		{"the base below two layers is gone, and the guest off", "qcow2 : remove-base/0/0 snapshot/0/0 stop/0/0"},
		{"the layer below an overlay was renamed", "qcow2 : move-file/0/2 snapshot/0/0"},
		{"a run refuses a conflict and changes nothing", "qcow2+eph0 : remove-base/0/0 move-tree/0/1 recreate/0/16"},
		{"an empty file in a new tree, the guest off", "qcow2 : move-tree/0/825983 recreate/0/277676 stop/0/150937"},
		{"the definition of a guest that is off names another file", "qcow2 : stop/0/0 redefine/0/2"},
		{"a base was renamed while the guard ran, the guest off", "qcow2 : move-file/0/244615 guard-start/0/340519 stop/0/885931"},
		{"a tree was moved with a mount in it",
			"qcow2 : mount-over/2/437654 remove-dir/0/556034 guard-start/1/546877 move-tree/2/708747 stop/0/997895"},
		{"a deleted disk in a directory that is a mount of the same file system",
			"qcow2 : mount-over/0/0 stop/0/0 start/0/0 write/0/1 remove-file/0/0 rescue/0/3"},
		{"the same of its base", "qcow2 : mount-over/0/2 stop/0/0 start/0/0 write/0/1 remove-file/0/1 rescue/0/3"},
		{"a copy of the tree is mounted over it, a guard comes, and the guest is shut off",
			"raw : remove-file/0/935537 mount-over/0/463978 guard-start/0/586576 write/0/290948 stop/0/914006"},
		{"a mount hides the base before the guard starts", "qcow2 : mount-over/0/817892 guard-start/0/176461 stop/0/551476"},
		{"strangers come to the paths of a deleted disk and of a base that was moved, the guest off",
			"qcow2 : remove-dir/0/0 guard-start/0/0 move-tree/0/1018533 stop/0/563716 recreate/0/142000 recreate/0/1038791 rescue/0/0"},
		{"the tree was moved, the guest shut off, and its definition changed",
			"qcow2 : move-tree/2/546676 guard-start/1/76534 stop/2/565835 redefine/2/297545"},
		{"an inode number comes again", "qcow2 : backup/0/0" + again + again + again + again + " write/0/1 remove-file/0/0 reuse/0/0"},
	}
}

func TestWhatOsRescueOnceGotWrong(t *testing.T) {
	h := newHost(t)
	for _, k := range knownFaults() {
		t.Run(k.name, func(t *testing.T) {
			plays(t, h, k.script)
		})
	}
}

// TestAScript plays the sequence of ORACLE_SCRIPT, as a failing one prints it.
func TestAScript(t *testing.T) {
	text := os.Getenv("ORACLE_SCRIPT")
	if text == "" {
		t.Skip("ORACLE_SCRIPT is not set: there is nothing to play again")
	}
	plays(t, newHost(t), text)
}

func plays(t *testing.T, h *host, text string) {
	t.Helper()
	s, err := parseScript(text)
	if err != nil {
		t.Fatal(err)
	}
	o, err := replay(t, h, s)
	if err != nil {
		t.Fatalf("%v\n%s", err, o)
	}
	if o.fault != nil {
		t.Errorf("%s\n%s", text, o)
	} else {
		t.Logf("%s\n%s", text, o)
	}
}
