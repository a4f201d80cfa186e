package recover

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/keeper"
)

// shelf is systemd's descriptor store as the guard sees it.
type shelf struct {
	mu    sync.Mutex
	files map[string]*os.File
}

func (s *shelf) StoreFD(name string, f *os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files[name] != nil {
		return fmt.Errorf("%s is there already", name)
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	s.files[name] = os.NewFile(uintptr(fd), name)
	return err
}

func (s *shelf) RemoveFD(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[name]
	delete(s.files, name)
	return f.Close()
}

// inherit is what a new life gets.
func (s *shelf) inherit(t testing.TB) (all []*os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, f := range s.files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		must(t, err)
		all = append(all, os.NewFile(uintptr(fd), name))
	}
	return all
}

func TestARestartLosesNoHoldAndForgetsNothing(t *testing.T) {
	h := newHost(t)
	v, off := h.add(1, guestOptions{base: "b1", console: true}), h.add(2, guestOptions{state: StateShutOff})
	s := &shelf{files: map[string]*os.File{}}
	g := h.guard(GuardOptions{}, s, nil)
	g.await("the first scan", func(s GuardStatus) bool { return !s.Scanned.IsZero() })
	h.purge()
	before := g.await("the incidents", func(s GuardStatus) bool { return len(s.Incidents) == 2 })
	v.forgotten()
	must(t, g.stop())
	c, err := keeper.Connect(t.Context(), h.settings.StateDir)
	must(t, err)
	holds, err := c.List(t.Context())
	must(t, err)
	c.Close()
	if len(holds) == 0 {
		t.Error("the keeper was given nothing")
	}
	again := h.guard(GuardOptions{}, s, s.inherit(t))
	after := again.await("the next life", func(s GuardStatus) bool { return !s.Scanned.IsZero() && len(s.Incidents) == 2 })
	if after.Held.DeletedFiles != before.Held.DeletedFiles || !after.Incidents[0].Since.Equal(before.Incidents[0].Since) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	again.await("the keeper has let go", func(GuardStatus) bool {
		status, err := h.engine().Keeper(t.Context())
		must(t, err)
		return len(status.Holds) == 0
	})
	ran, err := h.run(t.Context(), CommandRescue, offlineOf(v, off))
	must(t, err)
	for _, i := range ran.Instances {
		if i.Outcome != OutcomeRescued {
			t.Fatalf("it says %+v", i)
		}
	}
	v.hasContent(t)
	off.hasContent(t)
	again.await("the end", func(s GuardStatus) bool { return s.Held.DeletedFiles == 0 })
	must(t, again.stop())
	for _, f := range s.inherit(t) {
		var st unix.Stat_t
		must(t, unix.Fstat(int(f.Fd()), &st))
		if st.Nlink == 0 {
			t.Errorf("the shelf still has a deleted file, %s", f.Name())
		}
	}
}

func TestTwoGuardsAreOneTooMany(t *testing.T) {
	h := newHost(t)
	h.guard(GuardOptions{}, nil, nil)
	second, err := h.engine().NewGuard(GuardOptions{}, nil, nil)
	must(t, err)
	if err := second.Run(t.Context(), func() {}); !errors.Is(err, keeper.ErrRunning) {
		t.Errorf("the second one says %v", err)
	}
}

func FuzzGuardRecord(f *testing.F) {
	f.Add([]byte(`{"domain":{"uuid":"0b8b7d5e-3a51-4a1c-a0b5-000000000001","disks":[{"target":"vda","chain":[{"source":"file","path":"/x"}]}]}}`))
	f.Add([]byte(`{"domain":{"uuid":"0b8b7d5e-3a51-4a1c-a0b5-000000000001","disks":[{}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseGuardRecord(testUUID(1), data)
		if err != nil {
			return
		}
		d := r.remembered()
		expectedFiles(d, "/var/lib/nova/instances")
		handsOff(d)
	})
}

func FuzzHeldFiles(f *testing.F) {
	f.Add([]byte(`{"boot_id":"x","holds":[{"device":1,"inode":2,"path":"/a","role":"disk"}]}`))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = parseHeldFiles(data) })
}

func FuzzGuardStatus(f *testing.F) {
	f.Add([]byte(`{"status":{"running":true}}`))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = joinStatus([]json.RawMessage{data}) })
}

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
