package hypervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

func TestWhatAnOldLibvirtOrQEMUCantDoIsSaid(t *testing.T) {
	for _, tt := range []struct {
		lv, hv              uint32
		missing             bool
		synchronous, export bool
	}{
		{5_010_000, 4_002_000, true, false, false},
		{6_000_000, 4_001_000, true, false, false},
		{6_000_000, 4_002_000, false, false, false},
		{7_002_000, 5_001_000, false, false, false},
		{7_002_000, 5_002_000, false, false, true},
		{9_000_000, 7_002_022, false, true, true},
	} {
		got := mirrorSupport(tt.lv, tt.hv)
		if (got.Missing != "") != tt.missing || got.Synchronous != tt.synchronous || got.Export != tt.export {
			t.Errorf("libvirt %d, QEMU %d: %+v", tt.lv, tt.hv, got)
		}
		if tt.missing && (!strings.Contains(got.Missing, dotted(tt.lv)) || !strings.Contains(got.Missing, "6.0.0")) {
			t.Errorf("it says %q", got.Missing)
		}
	}
	if _, err := mirrorXML(recover.MirrorRequest{Path: "/a'<b>", Format: "raw"}); err != nil {
		t.Error(err)
	}
}

// running defines and starts a guest and waits for what it writes.
func running(ctx context.Context, t *testing.T, c *Client, g guest) {
	t.Helper()
	virsh(t, "define", writeXML(t, g.xml()))
	virsh(t, "start", g.name)
	patience.Wait(t, "the guest's writes", func() bool {
		got, err := c.Counters(ctx, g.uuid)
		if err != nil {
			t.Fatal(err)
		}
		return got["vdb"].WriteRequests == 1
	})
}

// synchronousMirror asks for a mirror of vda that copies the guest's writes at once.
func synchronousMirror(g guest) recover.MirrorRequest {
	return recover.MirrorRequest{Target: "vda", Path: g.file("mirror"), Format: "qcow2", Synchronous: true}
}

// empty makes an empty file for a mirror, and returns its inode number.
func empty(t *testing.T, path string) uint64 {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return inode(t, path)
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func ready(ctx context.Context, t *testing.T, c *Client, g guest, target string) {
	t.Helper()
	patience.Wait(t, "the mirror of "+target, func() bool {
		state, err := c.MirrorState(ctx, g.uuid, target)
		if err != nil {
			t.Fatal(err)
		}
		if state.Ready && state.Copied != state.Total {
			t.Fatalf("ready, and %+v", state)
		}
		return state.Ready
	})
}

func TestADomainMovesOntoMirrorsThatAreRenamedMeanwhile(t *testing.T) {
	startLibvirt(t)
	g := newGuest(t)
	c, ctx := open(t, nil)
	running(ctx, t, c, g)
	before := virsh(t, "dumpxml", "--inactive", g.name)
	was := domain(ctx, t, c, g)
	files := map[string]string{"vda": "disk", "vdb": "data"}
	formats := map[string]string{"vda": "qcow2", "vdb": "raw"}
	inodes := map[string]uint64{}
	for target, name := range files {
		if err := os.Remove(g.file(name)); err != nil {
			t.Fatal(err)
		}
		inodes[target] = empty(t, g.file(name))
		m := recover.MirrorRequest{Target: target, Path: g.file(name), Format: formats[target], BytesPerSecond: 1 << 30, Synchronous: true}
		if err := c.Mirror(ctx, g.uuid, m); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(g.file(name), g.file("staged-"+name)); err != nil {
			t.Fatal(err)
		}
		if err := c.Mirror(ctx, g.uuid, m); !errors.Is(err, ErrState) {
			t.Errorf("a second mirror of %s: %v", target, err)
		}
	}
	if d := domain(ctx, t, c, g); d.BlockJobs["vda"] != "copy" || d.BlockJobs["vdb"] != "copy" {
		t.Errorf("the jobs are %v", d.BlockJobs)
	}
	for target := range files {
		ready(ctx, t, c, g, target)
	}
	if err := c.Suspend(ctx, g.uuid); err != nil {
		t.Fatal(err)
	}
	for target, name := range files {
		if err := os.Rename(g.file("staged-"+name), g.file(name)); err != nil {
			t.Fatal(err)
		}
		if err := c.Pivot(ctx, g.uuid, target); err != nil {
			t.Fatal(err)
		}
		if _, err := c.MirrorState(ctx, g.uuid, target); !errors.Is(err, recover.ErrNoMirror) {
			t.Errorf("after the pivot: %v", err)
		}
		if err := c.Pivot(ctx, g.uuid, target); !errors.Is(err, recover.ErrNoMirror) {
			t.Errorf("a second pivot: %v", err)
		}
		if inode(t, g.file(name)) != inodes[target] {
			t.Errorf("%s is another file than the one that was made for it", name)
		}
	}
	now := domain(ctx, t, c, g)
	for n := range was.Disks {
		if len(now.Disks[n].Chain) != len(was.Disks[n].Chain) || now.Disks[n].Chain[0] != was.Disks[n].Chain[0] {
			t.Errorf("the chain is %+v, and was %+v", now.Disks[n].Chain, was.Disks[n].Chain)
		}
	}
	// Of a raw image libvirt now says that it has no backing file: no raw image has.
	after := strings.ReplaceAll(virsh(t, "dumpxml", "--inactive", g.name), "      <backingStore/>\n", "")
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the definition (-before +after):\n%s", diff)
	}
	held := descriptors(t)
	for _, target := range []string{"vda", "vdb"} {
		if _, open := held[inodes[target]]; !open {
			t.Errorf("QEMU does not have the new file of %s open: %v", target, held)
		}
	}

	// What it is now can be read, whatever it writes later.
	socket, err := c.Export(ctx, g.uuid, bothDisks(g))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Export(ctx, g.uuid, nil); !errors.Is(err, ErrState) {
		t.Errorf("a second export: %v", err)
	}
	if err := c.Resume(ctx, g.uuid); err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]string{"vda": "64 MiB", "vdb": "32 MiB"} {
		if info := run(t, "qemu-img", "info", "nbd+unix:///"+target+"?socket="+socket); !strings.Contains(info, want) {
			t.Errorf("the export of %s: %s", target, info)
		}
	}
	for range 2 {
		if err := c.EndExport(ctx, g.uuid); err != nil {
			t.Fatal(err)
		}
	}
	for _, left := range []string{g.file("scratch-vda"), g.file("scratch-vdb"), socket} {
		if _, err := os.Lstat(left); err == nil {
			t.Errorf("left behind: %s", left)
		}
	}
	if d := domain(ctx, t, c, g); d.Job != "" || d.State != recover.StateRunning {
		t.Errorf("afterwards it is %s, job %q", d.State, d.Job)
	}
}

// virshPID is the pid of the only guest, as its pid file has it.
func virshPID(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/run/libvirt/qemu/instance-00000001.pid")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func TestAMirrorThatIsEndedLeavesTheDomainOnItsSource(t *testing.T) {
	libvirtd := startLibvirt(t)
	g := newGuest(t)
	c, ctx := open(t, nil)
	if err := c.EndMirror(ctx, g.uuid, "vda"); err != nil {
		t.Errorf("of an unknown domain: %v", err)
	}
	if err := c.EndExport(ctx, g.uuid); err != nil {
		t.Errorf("of an unknown domain: %v", err)
	}
	running(ctx, t, c, g)
	source := inode(t, g.file("disk"))
	if err := c.EndMirror(ctx, g.uuid, "vda"); err != nil {
		t.Errorf("no mirror: %v", err)
	}
	empty(t, g.file("mirror"))
	if err := c.Mirror(ctx, g.uuid, synchronousMirror(g)); err != nil {
		t.Fatal(err)
	}
	ready(ctx, t, c, g, "vda")
	// libvirt finds its jobs again.
	libvirtd.kill()
	libvirtd.start(t)
	ready(ctx, t, c, g, "vda")
	if err := c.EndMirror(ctx, g.uuid, "vda"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.MirrorState(ctx, g.uuid, "vda"); !errors.Is(err, recover.ErrNoMirror) {
		t.Errorf("after its end: %v", err)
	}
	if d := domain(ctx, t, c, g); d.Disks[0].Chain[0].Path != g.file("disk") || inode(t, g.file("disk")) != source || len(d.BlockJobs) > 0 {
		t.Errorf("it is on %s, jobs %v", d.Disks[0].Chain[0].Path, d.BlockJobs)
	}
	virsh(t, "destroy", g.name)
	for name, err := range map[string]error{"EndMirror": c.EndMirror(ctx, g.uuid, "vda"), "EndExport": c.EndExport(ctx, g.uuid)} {
		if err != nil {
			t.Errorf("%s of a domain that is off: %v", name, err)
		}
	}
	if err := c.Mirror(ctx, g.uuid, recover.MirrorRequest{Target: "vda", Path: g.file("mirror"), Format: "qcow2"}); err == nil {
		t.Error("a domain that is off was mirrored")
	}
}

func TestADaemonThatDiesUnderAPivotIsAskedAgain(t *testing.T) {
	for _, call := range []string{"virDomainBlockCopy", "virDomainBlockJobAbort"} {
		t.Run(call, func(t *testing.T) {
			libvirtd := startLibvirt(t)
			g := newGuest(t)
			issued := 0
			c, ctx := open(t, func(made string) {
				if made != call {
					return
				}
				if issued++; issued == 1 {
					libvirtd.kill()
					libvirtd.start(t)
				}
			})
			running(ctx, t, c, g)
			made := empty(t, g.file("mirror"))
			if err := c.Mirror(ctx, g.uuid, synchronousMirror(g)); err != nil {
				t.Fatal(err)
			}
			ready(ctx, t, c, g, "vda")
			if err := c.Pivot(ctx, g.uuid, "vda"); err != nil {
				t.Fatal(err)
			}
			if d := domain(ctx, t, c, g); d.Disks[0].Chain[0].Path != g.file("mirror") || inode(t, g.file("mirror")) != made {
				t.Errorf("it is on %s", d.Disks[0].Chain[0].Path)
			}
			if issued != 2 {
				t.Errorf("%s was called %d times", call, issued)
			}
		})
	}
}

func TestAPivotOfAMirrorThatEndedMeanwhileIsErrNoMirror(t *testing.T) {
	for _, how := range []string{"it ends", "it ends and the daemon dies"} {
		t.Run(how, func(t *testing.T) {
			libvirtd := startLibvirt(t)
			g := newGuest(t)
			issued := 0
			c, ctx := open(t, func(made string) {
				if made != "virDomainBlockJobAbort" {
					return
				}
				if issued++; issued > 1 {
					return
				}
				virsh(t, "blockjob", g.name, "vda", "--abort")
				if how != "it ends" {
					libvirtd.kill()
					libvirtd.start(t)
				}
			})
			running(ctx, t, c, g)
			source := inode(t, g.file("disk"))
			if err := os.Rename(g.file("disk"), g.file("lost")); err != nil {
				t.Fatal(err)
			}
			// The same path: nothing but libvirt's index tells the two files apart.
			empty(t, g.file("disk"))
			if err := c.Mirror(ctx, g.uuid, recover.MirrorRequest{Target: "vda", Path: g.file("disk"), Format: "qcow2"}); err != nil {
				t.Fatal(err)
			}
			ready(ctx, t, c, g, "vda")
			if err := c.Pivot(ctx, g.uuid, "vda"); !errors.Is(err, recover.ErrNoMirror) {
				t.Errorf("error %v, want ErrNoMirror", err)
			}
			if _, on := descriptors(t)[source]; !on {
				t.Error("the guest is no longer on its source")
			}
		})
	}
}

func TestAPivotWhoseAnswerWasLostIsSeenInTheDomain(t *testing.T) {
	libvirtd := startLibvirt(t)
	g := newGuest(t)
	issued := 0
	c, ctx := open(t, func(made string) {
		if made != "virDomainBlockJobAbort" {
			return
		}
		issued++
		virsh(t, "blockjob", g.name, "vda", "--pivot")
		libvirtd.kill()
		libvirtd.start(t)
	})
	running(ctx, t, c, g)
	made := empty(t, g.file("mirror"))
	if err := c.Mirror(ctx, g.uuid, recover.MirrorRequest{Target: "vda", Path: g.file("mirror"), Format: "qcow2"}); err != nil {
		t.Fatal(err)
	}
	ready(ctx, t, c, g, "vda")
	if err := c.Pivot(ctx, g.uuid, "vda"); err != nil {
		t.Error(err)
	}
	if _, on := descriptors(t)[made]; !on || issued != 1 {
		t.Errorf("on the mirror: %v; %d calls", on, issued)
	}
}

func TestAMirrorHasItsSourcesCacheModeAndAnyPath(t *testing.T) {
	startLibvirt(t)
	g := newGuest(t)
	c, ctx := open(t, nil)
	virsh(t, "define", writeXML(t, strings.ReplaceAll(g.xml(), "name='qemu' type=", "name='qemu' cache='none' type=")))
	if err := c.Start(ctx, g.uuid, true); err != nil { // a paused guest is mirrored too
		t.Fatal(err)
	}
	for target, format := range map[string]string{"vda": "qcow2", "vdb": "raw"} {
		path := g.file(`<a> & 'b', "` + target + `"`)
		made := empty(t, path)
		if err := c.Mirror(ctx, g.uuid, recover.MirrorRequest{Target: target, Path: path, Format: format, Synchronous: true}); err != nil {
			t.Fatal(err)
		}
		ready(ctx, t, c, g, target)
		if err := c.Pivot(ctx, g.uuid, target); err != nil {
			t.Fatal(err)
		}
		if inode(t, path) != made {
			t.Errorf("%s: another file than the one that was made", target)
		}
		if flags, open := descriptors(t)[made]; !open || flags&syscall.O_DIRECT == 0 {
			t.Errorf("%s: open %v, flags %o without O_DIRECT", target, open, flags)
		}
	}
	if d := domain(ctx, t, c, g); d.State != recover.StatePaused || d.PauseReason != recover.PauseUser {
		t.Errorf("it is %s for %s now", d.State, d.PauseReason)
	}
}

func TestAFullFileSystemEndsTheMirrorAndTheGuestRunsOn(t *testing.T) {
	startLibvirt(t)
	g := newGuest(t)
	c, ctx := open(t, nil)
	full := g.file("full")
	if err := os.Mkdir(full, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", full, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(full, syscall.MNT_DETACH) })
	fill(t, g, 1<<20)
	running(ctx, t, c, g)
	source := inode(t, g.file("data"))
	path := filepath.Join(full, "data")
	made := empty(t, path)
	err := c.Mirror(ctx, g.uuid, recover.MirrorRequest{Target: "vdb", Path: path, Format: "raw", Synchronous: true})
	if err != nil {
		t.Fatal(err)
	}
	patience.Wait(t, "the mirror to fail", func() bool {
		_, err = c.MirrorState(ctx, g.uuid, "vdb")
		return err != nil
	})
	if !errors.Is(err, recover.ErrNoMirror) {
		t.Errorf("error %v, want ErrNoMirror", err)
	}
	if err := c.EndMirror(ctx, g.uuid, "vdb"); err != nil {
		t.Error(err)
	}
	held := descriptors(t)
	if _, on := held[source]; !on {
		t.Error("the guest is no longer on its source")
	}
	if _, on := held[made]; on {
		t.Error("QEMU has the mirror's file open still")
	}
	if d := domain(ctx, t, c, g); d.State != recover.StateRunning || len(d.BlockJobs) != 0 {
		t.Errorf("it is %s, jobs %v", d.State, d.BlockJobs)
	}
}

func TestWhatCantBeMirroredOrExportedIsErrState(t *testing.T) {
	startLibvirt(t)
	g := newGuest(t)
	c, ctx := open(t, nil)
	m := recover.MirrorRequest{Target: "vda", Path: g.file("mirror"), Format: "qcow2"}
	empty(t, m.Path)
	want := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrState) {
			t.Errorf("%s: error %v, want ErrState", what, err)
		}
	}
	export := func(target string) error {
		_, err := c.Export(ctx, g.uuid, []recover.ExportDisk{{Target: "vda", Scratch: g.file("s1")}, {Target: target, Scratch: g.file("s2")}})
		return err
	}
	virsh(t, "define", writeXML(t, g.xml()))
	want("a mirror of a domain that is off", c.Mirror(ctx, g.uuid, m))
	want("an export of a domain that is off", export("vdb"))
	virsh(t, "start", g.name)
	want("an export of a disk that is not there", export("vdz"))
	if job := domain(ctx, t, c, g).Job; job != "" {
		t.Errorf("it left the job %s behind", job)
	}
	virsh(t, "blockpull", g.name, "vda", "--bandwidth", "1")
	want("a mirror during a pull", c.Mirror(ctx, g.uuid, m))
	if st, err := os.Stat(m.Path); err != nil || st.Size() != 0 {
		t.Errorf("the file was written: %v, error %v", st, err)
	}
}

// fill puts bytes into the data disk, which is all holes otherwise.
func fill(t *testing.T, g guest, size int) {
	t.Helper()
	f, err := os.OpenFile(g.file("data"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(bytes.Repeat([]byte{7}, size)); err != nil {
		t.Fatal(err)
	}
}

// descriptors are the flags of the regular files that the only guest has open, by
// inode.
func descriptors(t *testing.T) map[uint64]int {
	t.Helper()
	proc := filepath.Join("/proc", virshPID(t))
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		t.Fatal(err)
	}
	open := map[uint64]int{}
	for _, fd := range fds {
		var st syscall.Stat_t
		if syscall.Stat(filepath.Join(proc, "fd", fd.Name()), &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFREG {
			continue
		}
		info, err := os.ReadFile(filepath.Join(proc, "fdinfo", fd.Name()))
		if err != nil {
			t.Fatal(err)
		}
		var pos, flags int
		if _, err := fmt.Sscanf(string(info), "pos:\t%d\nflags:\t%o\n", &pos, &flags); err != nil {
			t.Fatal(err)
		}
		open[st.Ino] = flags
	}
	return open
}
