package recovertest

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
)

// mirrorRequest makes an empty file beside vdb's own, and the request to mirror onto it.
func mirrorRequest(s *hypervisorSuite, d recover.Domain) recover.MirrorRequest {
	s.Helper()
	top := s.disk(d, "vdb").Chain[0]
	m := recover.MirrorRequest{Target: "vdb", Path: filepath.Join(filepath.Dir(top.Path), "mirror"), Format: top.Format, Synchronous: true}
	s.must(os.WriteFile(m.Path, nil, 0o600))
	return m
}

func inodeOf(s *hypervisorSuite, path string) uint64 {
	s.Helper()
	var st unix.Stat_t
	s.must(unix.Lstat(path, &st))
	return st.Ino
}

// awaitReady waits until a mirror is.
func awaitReady(s *hypervisorSuite, g SuiteGuest, disk string) {
	s.Helper()
	s.await("the mirror of "+disk, func() bool {
		state, err := s.hv.MirrorState(s.ctx, g.UUID, disk)
		s.must(err)
		if state.Copied < 0 || state.Copied > state.Total || state.Ready && (state.Total == 0 || state.Copied != state.Total) {
			s.Fatalf("the mirror of %s is at %+v", disk, state)
		}
		return state.Ready
	})
}

// checkNoMirror checks that vdb has no mirror.
func checkNoMirror(s *hypervisorSuite, g SuiteGuest, when string) {
	const disk = "vdb"
	s.Helper()
	if state, err := s.hv.MirrorState(s.ctx, g.UUID, disk); !errors.Is(err, recover.ErrNoMirror) {
		s.Errorf("%s: MirrorState is %+v, error %v, want ErrNoMirror", when, state, err)
	}
	if err := s.hv.Pivot(s.ctx, g.UUID, disk); !errors.Is(err, recover.ErrNoMirror) {
		s.Errorf("%s: Pivot: error %v, want ErrNoMirror", when, err)
	}
	s.works(when+": EndMirror", s.hv.EndMirror(s.ctx, g.UUID, disk))
	if d := s.domain(g); d.BlockJobs[disk] != "" {
		s.Errorf("%s: the block jobs are %v", when, d.BlockJobs)
	}
}

// testMirrors: from Mirror to Pivot, with a client that ends and a guest that writes.
func testMirrors(s *hypervisorSuite) {
	support, err := s.hv.MirrorSupport(s.ctx)
	s.must(err)
	if support.Missing != "" || !support.Export {
		s.Fatalf("this hypervisor is too old for the suite: %+v", support)
	}
	g := s.guest(KindRunning)
	checkNoMirror(s, g, "before any")
	d := s.domain(g)
	source := s.disk(d, "vdb").Chain[0].Path
	m := mirrorRequest(s, d)
	inode := inodeOf(s, m.Path)

	// The job lives on when the one that began it ends.
	s.Run("begun by another client", func(t *testing.T) { Must(t, s.bed.Open(t, patience).Mirror(t.Context(), g.UUID, m)) })
	staged := m.Path + ".staged"
	s.must(os.Rename(m.Path, staged)) // QEMU has it open
	if err := s.hv.Mirror(s.ctx, g.UUID, mirrorRequest(s, d)); err == nil {
		s.Error("a second mirror of the disk is no error")
	}
	s.must(os.Remove(m.Path)) // the second's
	d = s.domain(g)
	if d.BlockJobs["vdb"] != "copy" || !s.holds(d, source) || !s.holds(d, staged) || s.disk(d, "vdb").Chain[0].Path != source {
		s.Errorf("during the mirror: %+v", d)
	}
	awaitReady(s, g, "vdb")
	before := s.read(g)
	s.asked(g) // every later write follows
	s.must(s.hv.Suspend(s.ctx, g.UUID))
	if data := s.read(g); data == before {
		s.Fatal("the guest has not written")
	} else {
		before = data
	}
	s.must(os.Rename(staged, m.Path))
	s.works("Pivot", s.hv.Pivot(s.ctx, g.UUID, "vdb"))
	d = s.domain(g)
	if s.disk(d, "vdb").Chain[0].Path != m.Path || inodeOf(s, m.Path) != inode || !s.holds(d, m.Path) {
		s.Errorf("after Pivot the mirror's file is not the disk: %+v", d)
	}
	if s.holds(d, source) {
		s.Error("after Pivot the source is open still")
	}
	checkNoMirror(s, g, "after Pivot")
	s.is(g, "after Pivot", recover.StatePaused, recover.PauseUser)
	if s.read(g) != before {
		s.Error("the mirror does not have what the guest had written")
	}

	// From now on the guest's writes go into the mirror's file alone.
	s.must(s.hv.Resume(s.ctx, g.UUID))
	s.asked(g)
	s.must(s.hv.Suspend(s.ctx, g.UUID))
	if s.read(g) == before {
		s.Error("after Pivot the guest's writes are not in the mirror's file")
	}
	if data, err := os.ReadFile(source); err != nil || string(data) != before {
		s.Errorf("after Pivot the guest's writes are in the source: %v", err)
	}
}

// testRenamedMirrors: a file that is not back at its path is nothing to move onto. The
// mirror ends, and the guest goes on with its source.
func testRenamedMirrors(s *hypervisorSuite) {
	g := s.guest(KindRunning)
	d := s.domain(g)
	source := s.disk(d, "vdb").Chain[0].Path
	m := mirrorRequest(s, d)
	s.must(s.hv.Mirror(s.ctx, g.UUID, m))
	s.must(os.Rename(m.Path, m.Path+".staged"))
	awaitReady(s, g, "vdb")
	if err := s.hv.Pivot(s.ctx, g.UUID, "vdb"); !errors.Is(err, recover.ErrNoMirror) {
		s.Errorf("Pivot onto a file that is elsewhere: error %v, want ErrNoMirror", err)
	}
	now := s.domain(g)
	if !s.holds(now, source) || s.holds(now, m.Path+".staged") || s.disk(now, "vdb").Chain[0].Path != source {
		s.Errorf("after a Pivot that failed the domain is not on its source: %+v", now)
	}
	checkNoMirror(s, g, "after a Pivot that failed")
	s.asked(g)
}

// testPausedMirrors: the backing files stay those of the source, and files that are gone
// are mirrored too.
func testPausedMirrors(s *hypervisorSuite) {
	g := s.guest(KindRunning)
	s.must(s.hv.Suspend(s.ctx, g.UUID))
	was := s.domain(g)
	content := contentHashes(s, g)
	for _, target := range []string{"vda", "vdb"} {
		top := s.disk(was, target).Chain[0].Path
		s.must(os.Remove(top))
		m := recover.MirrorRequest{Target: target, Path: top, Format: s.disk(was, target).Chain[0].Format}
		s.must(os.WriteFile(top, nil, 0o600))
		inode := inodeOf(s, top)
		s.works("Mirror of "+target, s.hv.Mirror(s.ctx, g.UUID, m))
		awaitReady(s, g, target)
		s.works("Pivot of "+target, s.hv.Pivot(s.ctx, g.UUID, target))
		if inodeOf(s, top) != inode || !s.holds(s.domain(g), top) {
			s.Errorf("%s: the file that was made for it is not the disk", target)
		}
	}
	now := s.domain(g)
	if !reflect.DeepEqual(now.Disks, was.Disks) {
		s.Errorf("the disks are\n%+v\nand were\n%+v", now.Disks, was.Disks)
	}
	if now.PID != was.PID || now.State != recover.StatePaused {
		s.Errorf("it is %s in process %d, and was in %d", now.State, now.PID, was.PID)
	}
	if after := contentHashes(s, g); !reflect.DeepEqual(after, content) {
		s.Errorf("the guest sees other content on the mirrors: %v, before %v", after, content)
	}
}

// testSlowMirrors: a mirror with a limit is not ready, and not fit for Pivot.
func testSlowMirrors(s *hypervisorSuite) {
	g := s.guest(KindRunning)
	d := s.domain(g)
	m := mirrorRequest(s, d)
	m.BytesPerSecond = 4 << 10
	s.must(s.hv.Mirror(s.ctx, g.UUID, m))
	state, err := s.hv.MirrorState(s.ctx, g.UUID, "vdb")
	s.must(err)
	if state.Ready || state.Total == 0 || state.Copied >= state.Total {
		s.Errorf("with a limit of 4 KiB a second the mirror is at %+v", state)
	}
	if err := s.hv.Pivot(s.ctx, g.UUID, "vdb"); err == nil || errors.Is(err, recover.ErrNoMirror) {
		s.Errorf("Pivot onto a mirror that is not ready: error %v", err)
	}
	const meanwhile = time.Second // enough for a mirror without a limit
	time.Sleep(meanwhile)
	if state, err = s.hv.MirrorState(s.ctx, g.UUID, "vdb"); err != nil || state.Ready {
		s.Errorf("after a Pivot that failed the mirror is at %+v, error %v", state, err)
	}
	if now := s.domain(g); !s.holds(now, s.disk(d, "vdb").Chain[0].Path) {
		s.Error("a Pivot that failed closed the source")
	}
	s.works("EndMirror", s.hv.EndMirror(s.ctx, g.UUID, "vdb"))
	if s.holds(s.domain(g), m.Path) {
		s.Error("after EndMirror of a mirror that is not ready QEMU has the file open")
	}
	checkNoMirror(s, g, "after EndMirror")
}

// testEndedMirrors: EndMirror leaves the domain on its source.
func testEndedMirrors(s *hypervisorSuite) {
	g := s.guest(KindRunning)
	d := s.domain(g)
	source := s.disk(d, "vdb").Chain[0].Path
	m := mirrorRequest(s, d)
	s.must(s.hv.Mirror(s.ctx, g.UUID, m))
	awaitReady(s, g, "vdb")
	s.works("EndMirror", s.hv.EndMirror(s.ctx, g.UUID, "vdb"))
	now := s.domain(g)
	if s.holds(now, m.Path) {
		s.Error("after EndMirror QEMU has the file open")
	}
	if !s.holds(now, source) || s.disk(now, "vdb").Chain[0].Path != source || now.State != recover.StateRunning {
		s.Errorf("after EndMirror the domain is not as it was: %+v", now)
	}
	checkNoMirror(s, g, "after EndMirror")
	s.asked(g)

	// A file with content is not overwritten.
	const content = "somebody's"
	s.must(os.WriteFile(m.Path, []byte(content), 0o600))
	if err := s.hv.Mirror(s.ctx, g.UUID, m); err == nil {
		s.Error("Mirror onto a file that is not empty is no error")
	}
	if data, err := os.ReadFile(m.Path); err != nil || string(data) != content {
		s.Errorf("Mirror overwrote a file: %q, %v", data, err)
	}
	checkNoMirror(s, g, "after a Mirror that failed")

	s.must(s.hv.Destroy(s.ctx, g.UUID))
	s.works("EndMirror of a domain that is off", s.hv.EndMirror(s.ctx, g.UUID, "vdb"))
	s.must(os.Truncate(m.Path, 0))
	if err := s.hv.Mirror(s.ctx, g.UUID, m); err == nil {
		s.Error("Mirror of a domain that is off is no error")
	}
}

// testFailedMirrors: a mirror that fails leaves the guest on its source.
func testFailedMirrors(s *hypervisorSuite) {
	g := s.guest(KindOff)
	d := s.domain(g)
	source := s.disk(d, "vdb").Chain[0].Path
	full := filepath.Join(filepath.Dir(source), "full")
	s.must(os.Mkdir(full, 0o755))
	s.must(unix.Mount("tmpfs", full, "tmpfs", 0, "size=64k"))
	s.Cleanup(func() { _ = unix.Unmount(full, unix.MNT_DETACH) })
	s.must(s.hv.Start(s.ctx, g.UUID, false)) // now: a QEMU may see no later mount
	m := recover.MirrorRequest{Target: "vdb", Path: filepath.Join(full, "mirror"), Format: "raw", Synchronous: true}
	s.must(os.WriteFile(m.Path, nil, 0o600))
	s.must(s.hv.Mirror(s.ctx, g.UUID, m))
	s.await("a mirror that does not fit to end", func() bool {
		state, err := s.hv.MirrorState(s.ctx, g.UUID, "vdb")
		if err == nil && state.Ready {
			s.Fatalf("a mirror that does not fit is ready: %+v", state)
		}
		if err != nil && !errors.Is(err, recover.ErrNoMirror) {
			s.Fatalf("error %v, want ErrNoMirror", err)
		}
		return err != nil
	})
	checkNoMirror(s, g, "after it failed")
	now := s.domain(g)
	if !s.holds(now, source) || s.holds(now, m.Path) || now.State != recover.StateRunning {
		s.Errorf("after a mirror that failed the domain is %+v", now)
	}
	s.asked(g)
}
