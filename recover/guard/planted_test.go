package guard_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// Directories that are called like instances', planted and removed again, make few questions to
// Nova, and keep none of its instances waiting.
func TestPlantedDirectoriesThatVanishDoNotFloodNova(t *testing.T) {
	const planted, asked = 150, 120
	h := runtest.NewHost(t)
	v := h.Add(1, recovertest.GuestOptions{State: recover.StateShutOff})
	h.Online()
	g := startGuard(h, guard.Options{}, nil, nil)
	g.awaitScan()
	var dirs []string
	for range planted {
		dir := filepath.Join(h.Settings.InstancesPath, uuid.NewString())
		recovertest.Must(t, os.Mkdir(dir, 0o755))
		recovertest.Must(t, os.WriteFile(filepath.Join(dir, "disk"), []byte("x"), 0o644))
		dirs = append(dirs, dir)
	}
	g.await("they are held", func(s guard.Status) bool { return s.Held.Files >= planted })
	for _, dir := range dirs {
		recovertest.Must(t, os.RemoveAll(dir))
	}
	g.await("it is said", func(s guard.Status) bool {
		return slices.ContainsFunc(s.Problems, func(p string) bool { return strings.Contains(p, "libvirt never named have lost files") })
	})
	v.Rm()
	v.Forgotten()
	h.Cloud.Deletes(v.UUID)
	s := g.await("what Nova has deleted is let go", func(s guard.Status) bool { return s.Released[keeper.ReleasedDeleted] > 0 })
	time.Sleep(time.Second) // some more scans
	calls := 0
	for _, dir := range dirs {
		calls += h.Cloud.Called("Server", filepath.Base(dir))
	}
	if s = g.Status(); calls == 0 || calls > asked || s.Held.DeletedFiles != planted {
		t.Errorf("Nova was asked %d times about them, and %d are held", calls, s.Held.DeletedFiles)
	}
}
