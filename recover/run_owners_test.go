package recover

import (
	"testing"

	"github.com/os-rescue/os-rescue/recover/beneath"
)

// ownersAt looks the table up.
func ownersAt(t testing.TB, s Settings) *owners {
	t.Helper()
	root, err := beneath.OpenRoot(s.Root)
	must(t, err)
	t.Cleanup(func() { root.Close() })
	o, err := resolveOwners(s, root)
	must(t, err)
	return o
}
