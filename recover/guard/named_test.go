package guard

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/treewatch"
)

// A guard that begins while libvirt is gone knows from its own files what a definition named; what
// is planted takes no place from that.
func TestWhatTheGuardKnowsItselfIsHeldFirst(t *testing.T) {
	dir := t.TempDir()
	root, err := beneath.OpenRoot("/")
	recovertest.Must(t, err)
	defer root.Close()
	watch, err := treewatch.New()
	recovertest.Must(t, err)
	defer watch.Close()
	p, last, records := newProblems(), &lastScan{}, newRecords(inventory.In(t.TempDir()))
	h := newHoldings(nil, func() {})
	defer h.close()
	h.bounds = bounds{named: 10, ofOwner: 1, strays: 2, bases: 1}
	s := &treeScan{root: root, path: dir, watch: watch, holds: h, holdable: newHoldable(root, dir, p), records: records, last: last,
		problems: p, save: func() error { return nil }, onChange: func() {}, incidents: newIncidents(h, records, last, p, func() {})}
	file := func(elements ...string) string {
		path := filepath.Join(append([]string{dir}, elements...)...)
		recovertest.Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		recovertest.Must(t, os.WriteFile(path, []byte("x"), 0o600))
		return path
	}
	domain := func(n int, disk string, bases ...string) recover.Domain {
		chain := []recover.Image{{Source: recover.SourceFile, Path: disk}}
		for _, b := range bases {
			chain = append(chain, recover.Image{Source: recover.SourceFile, Path: b})
		}
		return recover.Domain{UUID: recovertest.UUID(n), Disks: []recover.Disk{{Target: "vda", Chain: chain}}}
	}
	for range 20 {
		file("_base", uuid.NewString())
		file(uuid.NewString(), "x")
		file(recovertest.UUID(1), uuid.NewString())
	}
	recorded, base := file(recovertest.UUID(1), "disk"), file("_base", "b")
	records.all[recovertest.UUID(1)] = inventory.Record{Domain: domain(1, recorded, base)}
	remembered := file(recovertest.UUID(2), "disk")
	st, err := identity.At(-1, remembered, 0)
	recovertest.Must(t, err)
	h.remember(map[recover.Inode]holdMemory{st.Inode(): {Device: st.Dev, Inode: st.Ino, Birth: st.Birth, Path: remembered,
		Owners: []string{recovertest.UUID(2)}, Role: recover.RoleDisk, Belongs: remembered, Since: time.Unix(1, 0)}})
	s.run(t.Context())
	held := func() map[string]recover.Role {
		paths := map[string]recover.Role{}
		for _, f := range h.all() {
			if f.Belongs != "" {
				paths[f.Path] = f.Role
			}
		}
		return paths
	}
	want := map[string]recover.Role{recorded: recover.RoleDisk, base: recover.RoleBacking, remembered: recover.RoleDisk}
	if got := held(); !maps.Equal(got, want) || len(h.all()) != 6 {
		t.Errorf("of %d it holds as named %v", len(h.all()), got)
	}
	if !slices.ContainsFunc(h.of(recovertest.UUID(2)), func(f guardHold) bool { return f.Since.Equal(time.Unix(1, 0)) }) {
		t.Error("it has forgotten since when it holds it")
	}

	// A scan could not judge an instance that is new.
	unjudged := file(recovertest.UUID(3), "disk")
	last.set(recover.Report{Instances: []recover.Instance{{UUID: recovertest.UUID(3), Verdict: recover.VerdictUnknown,
		Files: []recover.File{{Path: unjudged, Role: recover.RoleDisk}}}}})
	s.run(t.Context())
	want[unjudged] = recover.RoleDisk
	if got := held(); !maps.Equal(got, want) {
		t.Errorf("it holds as named %v", got)
	}
}
