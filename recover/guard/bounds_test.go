package guard

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestWhatLibvirtNamesHasDescriptorsOfItsOwn(t *testing.T) {
	for _, descriptors := range []uint64{256, 1024, 4096, 65536, 1 << 20, 1 << 62} {
		b := boundsOf(descriptors)
		if uint64(b.total()) >= descriptors || b.named < b.total()/2 || b.ofOwner < 1 || b.strays < b.ofOwner || b.bases < 1 {
			t.Errorf("with %d: %+v", descriptors, b)
		}
	}
	c := newTally(boundsOf(1024))
	for n := 0; c.admits("/x", recovertest.UUID(n/c.ofOwner)); n++ {
		c.add(holdMemory{Owners: []string{recovertest.UUID(n / c.ofOwner)}})
	}
	if c.inDirs != c.strays || c.all >= c.total() {
		t.Errorf("%d files of strangers are held, of %d in all: %+v", c.inDirs, c.all, c.bounds)
	}
	if !c.admits("/b", "") {
		t.Error("they leave no room for a cached image")
	}
	if c.admits("/y", recovertest.UUID(1000)) || c.beyond != 2 || c.example != "/x" || c.over != "" {
		t.Errorf("%d are beyond, as %s, and %q is in a directory with too many", c.beyond, c.example, c.over)
	}
	if c.admits("/z", recovertest.UUID(0)) || c.over != "/z" {
		t.Errorf("%q is in a directory with too many", c.over)
	}
	if b := boundsOf(65536); b.strays != 8192 || b.bases < 8000 || b.named != 32<<10 {
		t.Errorf("as the guard's unit has it: %+v", b)
	}
}

func TestAFileOfManyNamesIsOfAFewStrangers(t *testing.T) {
	h := newHoldings(nil, func() {})
	path := filepath.Join(t.TempDir(), "f")
	recovertest.Must(t, os.WriteFile(path, nil, 0o600))
	f, err := os.Open(path)
	recovertest.Must(t, err)
	recovertest.Must(t, h.add(f, holdMemory{Path: path, Role: recover.RoleOther}))
	defer h.close()
	inode := h.all()[0].inode()
	w := &treeHolding{treeScan: &treeScan{holds: h}, tally: h.tally(), known: map[string]bool{recovertest.UUID(900): true}}
	for n := range 1000 {
		w.visit(treeFile{path: path, owner: recovertest.UUID(n), inode: inode}, nil, "f")
	}
	if got := h.all()[0]; len(got.Owners) != mostStrayOwn+1 || !got.isOf(recovertest.UUID(900)) {
		t.Errorf("it is of %d instances", len(got.Owners))
	}
}

// Whoever makes files in the directory of an instance in an incident and deletes them, again and
// again, gets no more of them held than are held at once.
func TestWhatIsPlantedAndDeletedAgainAndAgainIsBounded(t *testing.T) {
	for _, name := range []string{"x", "console.log"} {
		dir, shelf := t.TempDir(), recovertest.NewShelf()
		root, err := beneath.OpenRoot("/")
		recovertest.Must(t, err)
		defer root.Close()
		p, last := newProblems(), &lastScan{}
		h := newHoldings(shelf, func() {})
		defer h.close()
		h.bounds = bounds{named: 1000, ofOwner: 4, strays: 8, bases: 2}
		b := newIncidents(h, newRecords(inventory.In(t.TempDir())), last, p, func() {})
		s := &treeScan{root: root, path: dir, holds: h, holdable: newHoldable(root, dir, p), incidents: b, last: last, problems: p}
		uuid := recovertest.UUID(1)
		for range 20 {
			w := &treeHolding{treeScan: s, tally: h.tally(), known: map[string]bool{uuid: true}, unheld: faults{}}
			for n := range 5 {
				sub := filepath.Join(dir, uuid, strconv.Itoa(n))
				recovertest.Must(t, os.MkdirAll(sub, 0o755))
				recovertest.Must(t, os.WriteFile(filepath.Join(sub, name), nil, 0o600))
			}
			_, err := walkTree(root, dir, func(string) bool { return true }, w.visit, w.tally.skip)
			recovertest.Must(t, err)
			recovertest.Must(t, os.RemoveAll(filepath.Join(dir, uuid)))
			s.newlyDeleted()
			b.begin(t.Context(), recover.Instance{UUID: uuid})
			recovertest.Must(t, h.shelve())
		}
		if n, shelved := len(h.deletedOf(uuid)), len(shelf.Inherit(t)); n != 4 || shelved != 4 {
			t.Errorf("of those called %s %d are held, %d of them on the shelf", name, n, shelved)
		}
		if i, ok := b.get(uuid); !ok || i.Files() != 4 {
			t.Errorf("the incident is %+v", i)
		}
	}
}

// Of each message of a status nothing can make more than one that arrives.
func TestAStatusIsCutWhereOthersMakeItLong(t *testing.T) {
	long := strings.Repeat("\x01", 4000) // six bytes each in JSON
	p := newProblems()
	status := Status{Running: true}
	i := recover.Instance{UUID: recovertest.UUID(0), Verdict: recover.VerdictRecoverable}
	for n := range 1500 {
		path := "/" + strconv.Itoa(n) + long
		i.Files = append(i.Files, recover.File{Path: path, State: recover.FileDeleted})
		i.Reasons = append(i.Reasons, path)
		i.NextStart = append(i.NextStart, recover.Divergence{})
		status.Report.Foreign = append(status.Report.Foreign, recover.Foreign{Path: path})
		status.SoftDeleted = append(status.SoftDeleted, recovertest.UUID(n))
		status.Incidents = append(status.Incidents, Incident{UUID: recovertest.UUID(n)})
		p.set("x "+path, fmt.Errorf("trouble with %s", path))
	}
	status.Report.Instances = []recover.Instance{i}
	status.Problems = p.list()
	parts := splitStatus(status)
	for _, part := range parts {
		if len(part) > 100<<10 {
			t.Errorf("a part has %d bytes", len(part))
		}
	}
	got, err := joinStatus(parts)
	recovertest.Must(t, err)
	if got.Report.Instances[0].Verdict != i.Verdict || len(got.Report.Instances[0].Files) == 0 || len(got.SoftDeleted) != 1500 ||
		len(got.Incidents) != 1500 || len(got.Report.Foreign) != foreignFiles {
		t.Errorf("%d files, %d soft deleted, %d incidents, %d foreign", len(got.Report.Instances[0].Files), len(got.SoftDeleted),
			len(got.Incidents), len(got.Report.Foreign))
	}
	said := strings.Join(append(got.Problems, got.Report.Instances[0].Reasons...), "\n")
	for _, want := range []string{"more problems", "more files", "more deleted files that processes write"} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q", want)
		}
	}
}

// What others can call a file crowds out no trouble of the host's.
func TestProblemsOfFilesAreToldLast(t *testing.T) {
	p := newProblems()
	long := map[string]error{}
	for n := range 200 {
		long["/"+strconv.Itoa(n)] = fmt.Errorf("/%d%s can't be held", n, strings.Repeat("\x01", 200))
	}
	p.replace(aboutTree, long)
	p.replace(aboutOpen, long)
	p.set("beyond", errors.New("/a: there are too many"))
	p.set("record u", errors.New("its definition can't be written"))
	p.set("scan", errors.New("the host can't be scanned"))
	list := p.list()
	if len(list) < 10 || list[0] != "the host can't be scanned" || list[1] != "its definition can't be written" {
		t.Errorf("it tells %q", list[:min(2, len(list))])
	}
	for _, text := range list {
		if n := len(encodePart(text)); n > problemBytes+8 {
			t.Errorf("one has %d bytes", n)
		}
	}
}

// A new disk, which a scan has not named yet, finds a place on the shelf however many cached images
// nobody uses.
func TestIdleBasesLeaveRoomOnTheShelf(t *testing.T) {
	h := newHoldings(recovertest.NewShelf(), func() {})
	defer h.close()
	dir := t.TempDir()
	add := func(name string, owners ...string) string {
		path := filepath.Join(dir, name)
		recovertest.Must(t, os.WriteFile(path, nil, 0o600))
		f, err := os.Open(path)
		recovertest.Must(t, err)
		recovertest.Must(t, h.add(f, holdMemory{Path: path, Role: recover.RoleOther, Owners: owners}))
		return path
	}
	for n := range mostShelvedBases + mostShelvedStrays {
		add(strconv.Itoa(n))
	}
	h.tally() // counts anew
	disk := add("disk", recovertest.UUID(1))
	n, isShelved := 0, false
	for _, hold := range h.all() {
		if hold.shelf != "" {
			n++
			isShelved = isShelved || hold.Path == disk
		}
	}
	if n != mostShelvedBases+1 || !isShelved {
		t.Errorf("of %d on the shelf the disk is one: %t", n, isShelved)
	}
}
