package recover

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// destroyed ends a guest's QEMU, forgotten has libvirt forget the domain besides.
func (g *testGuest) destroyed() { must(g.h.t, g.h.hv.Destroy(context.Background(), g.uuid)) }

func (g *testGuest) forgotten() { g.destroyed(); g.h.hv.forget(g.uuid) }

func (g *testGuest) rm() { must(g.h.t, os.RemoveAll(g.dir)) }

func offlineOf(g ...*testGuest) Options { o := options(g...); o.Offline = true; return o }

// fail has a method fail from now on, or with nil no longer.
func (c *fakeCloud) fail(method string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs[method] = err
}

// deletes has Nova have deleted an instance.
func (c *fakeCloud) deletes(uuid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.servers, uuid)
	if c.deleted == nil {
		c.deleted = map[string]bool{}
	}
	c.deleted[uuid] = true
}

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

// opened is the guest's disk, for what the guest writes.
func (g *testGuest) opened(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile(g.disk, os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// writes is the guest writing to its disk, past its end too.
func (g *testGuest) writes(t *testing.T, disk *os.File, off int, data string) {
	t.Helper()
	content := g.content[g.disk]
	content = append(content, make([]byte, max(0, off+len(data)-len(content)))...)
	copy(content[off:], data)
	g.content[g.disk] = content
	_, err := disk.WriteAt([]byte(data), int64(off))
	must(t, err)
}

// createQcow2 makes an image with qemu-img.
func createQcow2(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.Command("qemu-img", append([]string{"create", "-q", "-f", "qcow2"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img (needed for this test): %v %s", err, out)
	}
}

// corrupt makes the first entry of the L1 table point outside the image.
func corrupt(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var at [8]byte
	_, err = f.ReadAt(at[:], 40) // l1_table_offset in docs/interop/qcow2.txt
	must(t, err)
	var entry [8]byte
	binary.BigEndian.PutUint64(entry[:], 1<<63|1<<40)
	_, err = f.WriteAt(entry[:], int64(binary.BigEndian.Uint64(at[:])))
	must(t, err)
}

// chownTree gives the instances directory to another user, as it is nova's.
func chownTree(h *host) { os.Chown(h.settings.InstancesPath, 65534, 65534) }

// fullDir is a directory on a file system without a byte to spare, and a way to
// make room.
func fullDir(t testing.TB) (dir string, makeRoom func()) {
	t.Helper()
	dir = t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=700"))
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir, func() { os.Remove(filepath.Join(dir, "ballast")) }
}

func fill(t testing.TB, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "ballast"))
	must(t, err)
	defer f.Close()
	for size := 16 << 10; size > 0; size /= 2 {
		for {
			if _, err := f.Write(make([]byte, size)); err != nil {
				break
			}
		}
	}
}

// verdicts makes a report with an instance of each verdict.
func verdicts(all ...Verdict) Report {
	r := Report{Host: "node", Taken: time.Now()}
	for n, v := range all {
		i := Instance{UUID: testUUID(n), Domain: fmt.Sprintf("instance-%d", n), Name: fmt.Sprintf("web-%d", n), Verdict: v}
		r.Instances = append(r.Instances, i)
	}
	return r
}

func newCloud(t testing.TB, hv *fakeHypervisor) *fakeCloud { return &fakeCloud{t: t, hv: hv} }
