package e2e

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
	"github.com/os-rescue/os-rescue/test/lyingfs"
)

// tool runs a program that must succeed.
func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

func TestABackingFileIsTheSameByEveryName(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{NoAgent: true})
	rebase := func(name string) func() {
		return func() { tool(t, "qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", name, v.Disk) }
	}
	const backingFormat = 0xe2792aca // docs/interop/qcow2.txt, "Header extensions"
	for _, c := range []struct {
		name   string
		change func()
		keeps  string // in the header after a reboot
	}{
		{"relative", rebase("../_base/" + filepath.Base(v.Base)), "../_base/"},
		{"JSON", rebase(`json:{"driver":"raw","file":{"driver":"file","filename":"` + v.Base + `"}}`), "json:"},
		{"no format", func() {
			rebase(v.Base)()
			header, err := os.ReadFile(v.Disk)
			must(t, err)
			at := strings.Index(string(header[:1<<16]), string(binary.BigEndian.AppendUint32(nil, backingFormat)))
			if at < 0 {
				t.Fatal("the header has no backing format")
			}
			patch(t, v.Disk, int64(at), []byte{0x12, 0x34, 0x56, 0x78})
		}, v.Base},
	} {
		t.Run(c.name, func(t *testing.T) {
			v.again(t, c.change)
			l.DeleteTree(t)
			rescue(t, l, 0, "--all")
			v.isBack(t, 1)
			v.intact(t)
			out, err := exec.Command("qemu-img", "info", "-U", v.Disk).CombinedOutput()
			must(t, err)
			says(t, string(out), "backing file: "+c.keeps)
			l.DeleteTree(t)
			rescue(t, l, 0, "--all", "--mode", "live")
			v.unharmed(t)
			v.intact(t)
		})
	}
	t.Run("lazy refcounts", func(t *testing.T) {
		v.again(t, func() { tool(t, "qemu-img", "amend", "-f", "qcow2", "-o", "lazy_refcounts=on", v.Disk) })
		v.WaitLine(t, v.Send(t, "fill 8"), "fill payload")
		l.DeleteTree(t)
		got := of(t, rescue(t, l, 0, "--all"), v)
		v.isBack(t, 1)
		v.intact(t)
		says(t, strings.Join(got.Notes, "\n"), "lazy refcounts")
	})
}

// luks makes an encrypted disk and the secret that libvirt opens it with, and returns its <disk>.
func luks(t *testing.T, l *lab.Lab, path string) string {
	t.Helper()
	const secret = "457eb676-33da-42ec-9a8c-9293d545c337"
	definition := filepath.Join(t.TempDir(), "secret.xml")
	write(t, definition, "<secret ephemeral='no' private='no'><uuid>"+secret+"</uuid></secret>")
	l.Virsh(t, "secret-define", definition)
	l.Virsh(t, "secret-set-value", secret, base64.StdEncoding.EncodeToString([]byte("x")))
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	// It measures the speed of the CPU, and fails if the kernel has not accounted any CPU time to it yet.
	must(t, patience.Retry(func() error {
		return exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=x",
			"-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", path, "16M").Run()
	}))
	return fmt.Sprintf(`<disk type="file" device="disk"><driver name="qemu" type="qcow2" cache="none"/><source file="%s">
		<encryption format="luks"><secret type="passphrase" uuid="%s"/></encryption></source>
		<target dev="vdx" bus="virtio"/></disk>`, path, secret)
}

func TestADiskStopsOnlyWhatTouchesIt(t *testing.T) {
	const uuid = "d1dc1d6a-0000-4000-8000-000000000018"
	l := lab.New(t, withFailpoints)
	encrypted := filepath.Join(lab.InstancesDir, uuid, "disk.eph0") // as with Nova's ephemeral encryption
	shared, iso := filepath.Join(lab.NovaDir, "shared.raw"), filepath.Join(lab.NovaDir, "a.iso")
	write(t, shared, "")
	write(t, iso, "")
	must(t, os.Truncate(shared, 8<<20))
	must(t, os.Truncate(iso, 1<<20))
	devices := luks(t, l, encrypted) +
		`<disk type="file" device="disk"><driver name="qemu" type="raw" cache="none"/><source file="` + shared +
		`"/><target dev="vdy" bus="virtio"/><shareable/></disk>` +
		`<disk type="file" device="cdrom"><driver name="qemu" type="raw"/><source file="` + iso +
		`" startupPolicy="optional"/><target dev="hdb" bus="ide"/><readonly/></disk>`
	v := boot(t, l, lab.Spec{UUID: uuid, NoAgent: true, DevicesXML: devices})

	t.Run("a console log is put back", func(t *testing.T) {
		remove(t, v.ConsoleLog)
		if got := of(t, rescue(t, l, 0, "--all"), v); got.PauseSeconds != 0 {
			t.Errorf("%s", asJSON(t, got))
		}
		v.unharmed(t)
		v.intact(t)
	})
	t.Run("a plain disk is rescued live", func(t *testing.T) {
		remove(t, v.Disk)
		rescue(t, l, 0, "--all", "--mode", "live")
		v.unharmed(t)
		v.intact(t)
	})
	t.Run("an encrypted one is not mirrored in the clear", func(t *testing.T) {
		remove(t, encrypted)
		says(t, v.refused(t, "--all", "--mode", "live").Error, encrypted, "in the clear", "--mode reboot")
	})
	t.Run("an encrypted one is rescued by its bytes", func(t *testing.T) {
		remove(t, v.Disk)
		got := of(t, rescue(t, l, 0, "--all"), v)
		v.isBack(t, 1)
		v.intact(t)
		says(t, strings.Join(got.Notes, "\n"), encrypted, "the image is encrypted")
		if last := v.Boots()[v.boots-1]; last.Disks["vdb"] != "ok" {
			t.Errorf("what the guest wrote to it is %v", last.Disks)
		}
	})
	t.Run("a lost shareable one is left alone", func(t *testing.T) {
		remove(t, shared)
		says(t, v.refused(t, "--all").Error, "disk vdy", "shareable")
	})
}

func TestAPreallocatedDiskStaysSo(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{NoAgent: true, RawDisk: true})
	info, err := os.Stat(v.Disk)
	must(t, err)
	v.again(t, func() { tool(t, "fallocate", "-l", fmt.Sprint(info.Size()), v.Disk) })
	for _, mode := range []string{"reboot", "live"} {
		l.DeleteTree(t)
		rescue(t, l, 0, "--all", "--mode", mode)
		if mode == "reboot" {
			v.isBack(t, 1)
		}
		v.unharmed(t)
		v.intact(t)
		if size, bytes := allocated(t, v.Disk); size != info.Size() || bytes < size {
			t.Errorf("mode %s: it has %d of %d bytes", mode, bytes, size)
		}
	}
}

func TestADiskThatBtrfsWritesInPlaceIsClonedAsOne(t *testing.T) {
	l := lab.New(t, lab.Options{FileSystem: lab.Btrfs, BuildFlags: withFailpoints.BuildFlags})
	v := boot(t, l, lab.Spec{NoAgent: true})
	v.again(t, func() {
		inPlace := v.Disk + ".new"
		tool(t, "touch", inPlace)
		tool(t, "chattr", "+C", inPlace)
		tool(t, "cp", "--reflink=never", "--no-preserve=all", v.Disk, inPlace)
		must(t, os.Rename(inPlace, v.Disk))
	})
	l.DeleteTree(t)
	ran := rescue(t, l, 0, "--all")
	v.isBack(t, 1)
	v.intact(t)
	if got := copies(t, ran.Run, v)[v.Disk]; got.Method != copier.MethodClone {
		t.Errorf("%+v", got)
	}
	out, err := exec.Command("lsattr", v.Disk).Output()
	must(t, err)
	if flags, _, _ := strings.Cut(string(out), " "); !strings.Contains(flags, "C") {
		t.Errorf("it is written elsewhere now: %s", out)
	}
}

// As GlusterFS does with a file that another client has deleted.
func TestADiskThatCantBeOpenedAnewIsRescuedThroughQEMUsDescriptor(t *testing.T) {
	l := lab.New(t, withFailpoints)
	server, err := lyingfs.Mount(lab.InstancesDir, t.TempDir(), lyingfs.Options{KeepClosed: true})
	must(t, err)
	t.Cleanup(func() { _ = unix.Unmount(lab.InstancesDir, unix.MNT_DETACH) })
	v := boot(t, l, lab.Spec{NoAgent: true})
	l.DeleteTree(t)
	if f, err := os.Open(v.held(t, v.Disk)); err == nil {
		f.Close()
		t.Fatal("the file system opens a deleted file anew")
	}
	says(t, v.refused(t, "--all", "--accept-shared", "--mode", "live").Error, v.Disk, "does not open it anew", "--mode reboot")
	rescue(t, l, 0, "--all", "--accept-shared")
	v.isBack(t, 1)
	v.intact(t)
	t.Run("as on NFSv3, what even QEMU can't read is lost", func(t *testing.T) {
		remove(t, v.Disk)
		server.Forget()
		got := scan(t, l)[v.UUID]
		if got.Verdict != recover.VerdictLost {
			t.Errorf("%s", got.Verdict)
		}
		says(t, strings.Join(got.Reasons, "; "), v.Disk, "ESTALE")
	})
}
