package hypervisor

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// From libvirt 10 on QEMU's user can write what stands there.
func FuzzPIDFile(f *testing.F) {
	for _, text := range []string{"4711", "4711\n", "", "\n", "-1", "0", "+7", "4194304000", "1 2", "0x10", "1\x00",
		"\u0661", strings.Repeat("1", 40)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		pid := parsePID(text)
		if pid == 0 {
			return
		}
		if digits := strings.TrimLeft(strings.TrimPrefix(strings.TrimSpace(text), "+"), "0"); pid < 0 || strconv.Itoa(pid) != digits {
			t.Fatalf("%q is process %d", text, pid)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "n.pid"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := runDir(dir).pid("n"); got != pid && len(text) <= 32 || got != 0 && got != pid {
			t.Fatalf("%q is process %d in a file, and was %d", text, got, pid)
		}
	})
}
