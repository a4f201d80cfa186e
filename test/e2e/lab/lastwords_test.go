package e2e

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/test/lab"
)

// idle is a guest without an operating system, whose disks the test writes through QEMU.
type idle struct {
	l         *lab.Lab
	name, dir string
	disks     []string // paths of vda, vdb
}

const idleXML = `<domain type='qemu'><name>%s</name><uuid>%s</uuid>
<metadata><nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1"><nova:name>idle</nova:name>
<nova:owner><nova:project uuid="c1d2e3f4a5b64798a0b1c2d3e4f50617">prod</nova:project></nova:owner></nova:instance></metadata>
<memory unit='MiB'>32</memory><os><type arch='x86_64' machine='pc'>hvm</type></os>
<cpu mode='custom'><model>qemu64</model></cpu><devices>%s<video><model type='none'/></video><memballoon model='none'/></devices></domain>`

// newIdle makes a guest with a qcow2, which has a dirty bitmap, and a raw disk.
func newIdle(t *testing.T, l *lab.Lab) *idle {
	t.Helper()
	const uuid = "1d1e0000-0000-4000-8000-000000000001"
	g := &idle{l: l, name: "instance-0000001d", dir: filepath.Join(lab.InstancesDir, uuid)}
	must(t, os.MkdirAll(g.dir, 0o755))
	devices, info := "", []string{}
	for _, disk := range [][3]string{{"vda", "disk", "qcow2"}, {"vdb", "disk.eph0", "raw"}} {
		target, path, format := disk[0], filepath.Join(g.dir, disk[1]), disk[2]
		shell(t, "qemu-img", "create", "-q", "-f", format, path, "64M")
		if format == "qcow2" {
			shell(t, "qemu-img", "bitmap", "--add", path, "backup0")
		}
		devices += fmt.Sprintf("<disk type='file' device='disk'><driver name='qemu' type='%s' cache='none'/><source file='%s'/>"+
			"<target dev='%s' bus='virtio'/></disk>", format, path, target)
		info = append(info, fmt.Sprintf("%q: %q", path, format))
		g.disks = append(g.disks, path)
	}
	must(t, os.WriteFile(filepath.Join(g.dir, "disk.info"), []byte("{"+strings.Join(info, ", ")+"}"), 0o644))
	shell(t, "chown", "-R", "nova:nova", g.dir)
	xml := filepath.Join(t.TempDir(), "idle.xml")
	must(t, os.WriteFile(xml, fmt.Appendf(nil, idleXML, g.name, uuid, devices), 0o600))
	l.Virsh(t, "define", xml)
	return g
}

// write writes 64 KiB to the n-th disk, as the guest would. An error is one of virsh: the
// guest may have ended.
func (g *idle) write(t *testing.T, n int, pattern byte) error {
	t.Helper()
	_, err := lookVirsh(t, "qemu-monitor-command", g.name, "--hmp",
		fmt.Sprintf(`qemu-io -d /machine/peripheral/virtio-disk%d/virtio-backend "write -P %d 1M 64k"`, n, pattern))
	return err
}

// Somebody resumes the guest after the last look at it, and it writes, before the destroy or at
// the same time; QEMU writes the bitmap in closing the image. LAST_WORDS is the number of trials.
func TestNothingIsLostThatIsWrittenBetweenTheLastLookAndTheEnd(t *testing.T) {
	trials := 4
	if text := os.Getenv("LAST_WORDS"); text != "" {
		n, err := strconv.Atoi(text)
		must(t, err)
		trials = n
	}
	l := lab.New(t, withFailpoints)
	g := newIdle(t, l)
	again, lost := 0, 0
	for n := range trials {
		l.Virsh(t, "start", g.name)
		var held []*os.File
		for disk, path := range g.disks {
			must(t, g.write(t, disk, byte(2*n+1)))
			held = append(held, hold(t, lab.QemuPID(g.name), path))
		}
		l.DeleteTree(t)
		let := make(chan struct{})
		speak := func() {
			defer close(let)
			_, _ = lookVirsh(t, "resume", g.name)
			for disk := range g.disks {
				_ = g.write(t, disk, byte(2*n+2)) // it may have ended
			}
		}
		r := at(t, l, "destroy.begin", func() {
			go speak()
			if n%2 == 0 {
				<-let
			} else { // race with the destroy
				time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
			}
		}, rescueArgs("--all", "--no-reboot")...)
		<-let
		if r.Code != 0 {
			t.Fatalf("trial %d: exit code %d\n%s\n%s", n, r.Code, r.Stdout, r.Stderr)
		}
		again += count(t, report(t, r).Run, "update.done", "")
		for disk, path := range g.disks {
			if !sameAs(t, held[disk], path) {
				lost++
				t.Errorf("trial %d: %s is not what its QEMU left", n, path)
			}
			must(t, held[disk].Close())
		}
		if info := shell(t, "qemu-img", "info", g.disks[0]); strings.Contains(info, "in-use") || !strings.Contains(info, "backup0") {
			t.Errorf("trial %d: the bitmap can't be used: %s", n, info)
		}
	}
	t.Logf("%d trials, %d copies were made anew, %d were lost", trials, again, lost)
	if again < trials { // the bitmap alone is written every time
		t.Errorf("only %d copies were made anew in %d trials", again, trials)
	}
}

// hold opens what a process has open at a path, and keeps it.
func hold(t *testing.T, pid int, path string) *os.File {
	t.Helper()
	files, err := lab.OpenFiles(pid)
	must(t, err)
	for _, f := range files {
		if f.Path == path {
			file, err := os.Open(fmt.Sprintf("/proc/%d/fd/%d", pid, f.FD))
			must(t, err)
			return file
		}
	}
	t.Fatalf("process %d does not have %s open: %v", pid, path, files)
	return nil
}

// sameAs is true when a file has the content of what is at a path.
func sameAs(t *testing.T, held *os.File, path string) bool {
	t.Helper()
	left, err := io.ReadAll(io.NewSectionReader(held, 0, 1<<40))
	must(t, err)
	published, err := os.ReadFile(path)
	must(t, err)
	return bytes.Equal(left, published)
}

func shell(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}
