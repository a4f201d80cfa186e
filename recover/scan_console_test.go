package recover

import (
	"testing"
)

func TestAConsoleLogHeldByVirtlogdIsFound(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{console: true})
	h.purge()
	for _, f := range h.scan(g).Files {
		if f.Role != RoleConsoleLog {
			continue
		}
		if f.State != FileDeleted || len(f.Holders) != 1 || f.Holders[0].Process != "virtlogd" || f.Writable {
			t.Errorf("%+v", f)
		}
	}
}
