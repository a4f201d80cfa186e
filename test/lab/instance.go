package lab

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/ground"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// Spec says what an instance is like. The zero value is what Nova makes of a
// small flavor: a qcow2 overlay on a raw backing file, cache='none', the
// console log kept by virtlogd, a guest agent.
type Spec struct {
	UUID        string // random when empty
	DisplayName string
	ProjectID   string // 32 hexadecimal digits
	ProjectName string
	Flavor      string

	Image       string // instances of one image share its backing file
	RawDisk     bool   // disk is raw and has no backing file
	Ephemeral   bool   // disk.eph0: qcow2 on a backing file of its own
	Swap        string // disk.swap in this format, "raw" or "qcow2"; none when empty
	ConfigDrive bool   // disk.config: raw, read-only, a cdrom
	BlockDisk   bool   // a further disk on a block device
	BlockOnly   bool   // the only disk is a block device: no file at all but the console log

	NoMetadata bool // not Nova's
	NoAgent    bool
	SerialFile bool // the console is <serial type='file'>, as on old stacks: QEMU holds the log
	LogAppend  bool // <log append='on'>; Nova has 'off'

	Machine    string // pc (the default) or q35
	MemoryMiB  int    // 160
	Cache      string // none
	IO         string // native, threads, io_uring; QEMU's choice when empty
	DevicesXML string // goes to the end of <devices>
}

// Instance is a domain with its files and the guest in it.
type Instance struct {
	UUID        string
	Name        string // instance-0000000N, of the domain
	DisplayName string
	ProjectID   string
	Dir         string // InstancesDir/UUID
	Disk        string // Dir/disk
	Base        string // the backing file's path; empty when there is none
	ConsoleLog  string // its path
	Socket      string // of the lab's own channel to the guest

	lab     *Lab
	spec    Spec
	console *console
}

// Boot makes an instance, starts it and returns when its guest is ready.
func (l *Lab) Boot(t T, spec Spec) *Instance {
	t.Helper()
	i := l.Define(t, spec)
	i.Start(t)
	i.WaitBoot(t, 1)
	return i
}

// Define makes an instance with its files and its domain, shut off.
func (l *Lab) Define(t T, spec Spec) *Instance {
	t.Helper()
	i, err := l.define(t, spec)
	if err != nil {
		t.Fatalf("lab: define an instance: %v", err)
	}
	return i
}

func (l *Lab) define(t T, spec Spec) (*Instance, error) {
	number := len(l.instances) + 1
	defaults(&spec.UUID, uuid.NewString())
	defaults(&spec.DisplayName, fmt.Sprintf("web-%d", number))
	defaults(&spec.ProjectID, "c1d2e3f4a5b64798a0b1c2d3e4f50617")
	defaults(&spec.ProjectName, "production")
	defaults(&spec.Flavor, "m1.tiny")
	defaults(&spec.Image, "debian-12")
	defaults(&spec.Machine, "pc")
	defaults(&spec.Cache, "none")
	if spec.MemoryMiB == 0 {
		spec.MemoryMiB = 160
	}
	i := &Instance{
		UUID: spec.UUID, Name: fmt.Sprintf("instance-%08x", number),
		DisplayName: spec.DisplayName, ProjectID: spec.ProjectID,
		Dir: filepath.Join(InstancesDir, spec.UUID), lab: l, spec: spec,
	}
	i.Disk = filepath.Join(i.Dir, "disk")
	i.ConsoleLog = filepath.Join(i.Dir, "console.log")
	i.Socket = filepath.Join(labDir, "sockets", i.Name)

	disks, err := i.makeFiles(t)
	if err != nil {
		return nil, err
	}
	xml, err := i.domainXML(disks)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(labDir, i.Name+".xml")
	if err := os.WriteFile(file, []byte(xml), 0o600); err != nil {
		return nil, err
	}
	if _, err := virsh(t.Context(), "define", file); err != nil {
		return nil, err
	}
	i.console = newConsole(i.Socket)
	l.instances = append(l.instances, i)
	return i, nil
}

func defaults(field *string, value string) {
	if *field == "" {
		*field = value
	}
}

// makeFiles makes the instance's directory and disks, owned as Nova's are
// before libvirt gives what QEMU opens to QEMU.
func (i *Instance) makeFiles(t T) ([]disk, error) {
	ctx := t.Context()
	if err := i.lab.makeTree(); err != nil { // it may have been deleted
		return nil, err
	}
	if err := os.MkdirAll(i.Dir, 0o755); err != nil {
		return nil, err
	}

	disks, err := i.makeDisks(ctx)
	if err != nil {
		return nil, err
	}
	if i.spec.BlockDisk || i.spec.BlockOnly {
		device, err := i.blockDevice(t)
		if err != nil {
			return nil, err
		}
		disks = append(disks, disk{Path: device, Format: "raw", Block: true})
	}
	letter := 'a'
	for n := range disks {
		d := &disks[n]
		if d.Device == "cdrom" {
			d.Target, d.Bus = "hda", "ide"
			if strings.Contains(i.spec.Machine, "q35") {
				d.Target, d.Bus = "sda", "sata"
			}
			continue
		}
		d.Device, d.Target, d.Bus = "disk", "vd"+string(letter), "virtio"
		letter++
	}

	info, err := diskInfo(disks)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(i.Dir, "disk.info"), info, 0o644); err != nil {
		return nil, err
	}
	if err := os.WriteFile(i.ConsoleLog, nil, 0o660); err != nil {
		return nil, err
	}
	if err := os.Chmod(i.ConsoleLog, 0o660); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(i.Dir, "*"))
	if err != nil {
		return nil, err
	}
	for _, path := range append(files, i.Dir) {
		if err := chown(path, "nova", "nova"); err != nil {
			return nil, err
		}
	}
	return disks, nil
}

// makeDisks makes the image files, and the backing files that aren't there yet.
func (i *Instance) makeDisks(ctx context.Context) ([]disk, error) {
	var disks []disk
	// The names of Nova's backing files: nova/virt/libvirt/imagecache.py and
	// driver.py (_create_image).
	add := func(name, format, base string, make func(path string) error) error {
		path := filepath.Join(i.Dir, name)
		disks = append(disks, disk{Path: path, Format: format})
		if base == "" {
			return make(path)
		}
		base = filepath.Join(BaseDir, base)
		if _, err := os.Stat(base); err != nil {
			if err := make(base); err != nil {
				return err
			}
			if err := chown(base, "nova", "nova"); err != nil {
				return err
			}
		}
		return run(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, path)
	}
	copyImage := func(path string) error {
		return run(ctx, "cp", "--sparse=always", i.lab.image, path)
	}

	switch {
	case i.spec.BlockOnly:
	case i.spec.RawDisk:
		if err := add("disk", "raw", "", copyImage); err != nil {
			return nil, err
		}
	default:
		sum := sha1.Sum([]byte(i.spec.Image))
		name := hex.EncodeToString(sum[:])
		i.Base = filepath.Join(BaseDir, name)
		if err := add("disk", "qcow2", name, copyImage); err != nil {
			return nil, err
		}
	}
	if i.spec.Ephemeral {
		err := add("disk.eph0", "qcow2", "ephemeral_1_40d1d2c", func(path string) error {
			return run(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-L", "ephemeral0", path, "32M")
		})
		if err != nil {
			return nil, err
		}
	}
	if i.spec.Swap != "" {
		base := ""
		if i.spec.Swap == "qcow2" {
			base = "swap_16"
		}
		err := add("disk.swap", i.spec.Swap, base, func(path string) error {
			if err := run(ctx, "truncate", "-s", "16M", path); err != nil {
				return err
			}
			return run(ctx, "mkswap", "-q", path)
		})
		if err != nil {
			return nil, err
		}
	}
	if i.spec.ConfigDrive {
		err := add("disk.config", "raw", "", func(path string) error {
			body := make([]byte, 448<<10) // what genisoimage makes of Nova's
			chance := rand.NewChaCha8([32]byte([]byte(i.UUID)[:32]))
			_, _ = chance.Read(body) // never fails
			return os.WriteFile(path, body, 0o644)
		})
		if err != nil {
			return nil, err
		}
		disks[len(disks)-1].Device = "cdrom"
	}
	return disks, nil
}

// blockDevice makes a loop device that lives as long as the test and QEMU use it.
func (i *Instance) blockDevice(t T) (string, error) {
	file, err := ground.NamelessFile(diskDir, imageSize<<20)
	if err != nil {
		return "", err
	}
	defer file.Close()
	if i.spec.BlockOnly {
		out := fmt.Sprintf("of=/proc/%d/fd/%d", os.Getpid(), file.Fd())
		if err := run(t.Context(), "dd", "if="+i.lab.image, out, "bs=1M", "conv=sparse,notrunc", "status=none"); err != nil {
			return "", err
		}
	}
	loop, err := ground.AttachLoop(file, unix.LO_FLAGS_AUTOCLEAR)
	if err != nil {
		return "", err
	}
	t.Cleanup(func() { loop.Close() })
	return loop.Name(), nil
}

func run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// Start starts the domain; it does not wait for the guest.
func (i *Instance) Start(t T) {
	t.Helper()
	i.lab.Virsh(t, "start", i.Name)
}

// Destroy ends the domain's QEMU.
func (i *Instance) Destroy(t T) {
	t.Helper()
	i.lab.Virsh(t, "destroy", i.Name)
}

// State returns virsh's word for the domain's state: running, paused, shut off.
func (i *Instance) State(t T) string {
	t.Helper()
	return i.lab.Virsh(t, "domstate", i.Name)
}

// QemuPID returns the pid of the instance's QEMU, 0 when it does not run.
func (i *Instance) QemuPID() int { return QemuPID(i.Name) }

// Send gives the guest a command: poweroff, reboot, write (start the writer),
// quiet (stop it), verify, fill MIB. It does not wait for the answer, which comes
// after the mark that it returns.
func (i *Instance) Send(t T, command string) Mark {
	t.Helper()
	mark := markOf(i.Boots())
	if err := i.console.send(command); err != nil {
		t.Fatalf("lab: tell %s to %s: %v", i.Name, command, err)
	}
	return mark
}

// PowerOff lets the guest power itself off, and waits until the domain is shut
// off. While libvirtd is down QEMU stays after the guest's end (libvirt runs it
// with -no-shutdown and ends it by itself): use Send then.
func (i *Instance) PowerOff(t T) {
	t.Helper()
	i.Send(t, "poweroff")
	i.WaitGone(t)
}

// WaitGone waits until the instance's QEMU has ended and libvirtd, if it runs,
// knows it.
func (i *Instance) WaitGone(t T) {
	t.Helper()
	err := patience.Retry(func() error {
		if pid := i.QemuPID(); pid != 0 {
			return fmt.Errorf("lab: QEMU %d of %s is still there", pid, i.Name)
		}
		if !i.lab.libvirtd.running() {
			return nil
		}
		if state, err := virsh(t.Context(), "domstate", i.Name); err == nil && state != "shut off" {
			return fmt.Errorf("lab: %s is still %s", i.Name, state)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// Boots returns everything that the guest has said since it was defined.
func (i *Instance) Boots() []Boot {
	boots, _ := i.console.snapshot()
	return boots
}

// LastBeat returns the last beat that the guest has said, 0 before the first.
// What is said is on the guest's disk. A paused guest may have said one more
// than has arrived: compare with Boot.LastBeat as "at least".
func (i *Instance) LastBeat() int {
	return lastBeat(i.Boots())
}

func lastBeat(boots []Boot) int {
	for n := len(boots) - 1; n >= 0; n-- {
		if beats := boots[n].Beats; len(beats) > 0 {
			return beats[len(beats)-1]
		}
	}
	return 0
}

// WaitBeat waits until the guest has said that beat or a later one.
func (i *Instance) WaitBeat(t T, beat int) {
	t.Helper()
	i.wait(t, fmt.Sprintf("beat %d", beat), func(boots []Boot) bool { return lastBeat(boots) >= beat })
}

// WaitBoot waits until that boot of the guest, counted from 1, is ready, and
// returns what it said.
func (i *Instance) WaitBoot(t T, number int) Boot {
	t.Helper()
	boots := i.wait(t, fmt.Sprintf("boot %d", number), func(boots []Boot) bool {
		return len(boots) > 0 && boots[len(boots)-1].Number >= number && boots[len(boots)-1].Ready
	})
	if last := boots[len(boots)-1]; last.Number != number {
		t.Fatalf("lab: %s has booted %d times, want %d", i.Name, last.Number, number)
	}
	return boots[len(boots)-1]
}

// WaitLine waits until the guest has said, after a mark, a line that begins so, and
// returns the first such line.
func (i *Instance) WaitLine(t T, after Mark, prefix string) (line string) {
	t.Helper()
	i.wait(t, fmt.Sprintf("%q", prefix), func(boots []Boot) (found bool) {
		line, found = lineAfter(boots, after, prefix)
		return found
	})
	return line
}

// Verify has the running guest compare its payload, and fails the test if it is bad.
func (i *Instance) Verify(t T) {
	t.Helper()
	if line := i.WaitLine(t, i.Send(t, "verify"), "verify "); !strings.HasPrefix(line, "verify payload=ok") {
		t.Fatalf("lab: %s says: %s", i.Name, line)
	}
}

// WaitAgent waits until the guest's agent answers. It starts after the guest is ready.
func (i *Instance) WaitAgent(t T) {
	t.Helper()
	err := patience.Retry(func() error {
		_, err := virsh(t.Context(), "qemu-agent-command", i.Name, `{"execute":"guest-ping"}`)
		return err
	})
	if err != nil {
		t.Fatalf("lab: the agent of %s: %v", i.Name, err)
	}
}

func (i *Instance) wait(t T, what string, ok func([]Boot) bool) []Boot {
	t.Helper()
	boots, found := i.console.wait(ok)
	if !found {
		t.Fatalf("lab: %s never came to %s in %s; its last words:\n%s", i.Name, what, patience.Limit(), i.console.tail(20))
	}
	return boots
}
