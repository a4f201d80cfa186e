package guard

import "testing"

func TestTheInstanceOfADirectory(t *testing.T) {
	for name, want := range map[string]string{
		"0b8b7d5e-3a51-4a1c-a0b5-000000000001":        "0b8b7d5e-3a51-4a1c-a0b5-000000000001",
		"0B8B7D5E-3A51-4A1C-A0B5-000000000001_resize": "0b8b7d5e-3a51-4a1c-a0b5-000000000001",
		"0b8b7d5e-3a51-4a1c-a0b5-000000000001_del":    "0b8b7d5e-3a51-4a1c-a0b5-000000000001",
		"_base": "", "locks": "", "snapshots": "", ".os-rescue-x": "", "0b8b7d5e3a514a1ca0b5000000000001": "", "": "",
	} {
		if got := ownerOfDir(name); got != want {
			t.Errorf("%s is of %q, want %q", name, got, want)
		}
	}
}
