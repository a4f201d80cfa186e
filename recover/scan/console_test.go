package scan_test

import (
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestAConsoleLogHeldByVirtlogdIsFound(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Console: true})
	h.Purge()
	for _, f := range h.Scan(g).Files {
		if f.Role != recover.RoleConsoleLog {
			continue
		}
		if f.State != recover.FileDeleted || len(f.Holders) != 1 || f.Holders[0].Process != "virtlogd" || f.Writable {
			t.Errorf("%+v", f)
		}
	}
}
