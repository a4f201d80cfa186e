package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

//go:embed guest
var guestFiles embed.FS

// imageVersion is part of the image's name in the cache: raise it when the way
// an image is built changes.
const imageVersion = "1"

// The layout of the guest's disk, in MiB.
const (
	bootStart = 1
	bootSize  = 40
	dataStart = bootStart + bootSize
	dataSize  = 86
	imageSize = dataStart + dataSize + 1
)

// guestModules are loaded in this order, each with whatever it needs before it;
// one that the kernel has built in is left out.
var guestModules = []string{
	"virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci",
	"virtio_blk", "virtio_console", "evdev", "button",
	"crc16", "crc32c_generic", "mbcache", "jbd2", "ext4",
}

// guestApplets are the names under which the guest's init calls busybox.
var guestApplets = []string{
	"sh", "acpid", "awk", "cat", "cut", "dd", "echo", "insmod", "mkdir", "mkfifo", "mount", "poweroff",
	"printf", "reboot", "rm", "sha256sum", "sleep", "sync", "tail", "touch", "usleep",
}

// GuestImage returns the path of the guest's raw disk image in the cache
// directory, and builds it there first when its inputs have changed. It mounts
// nothing and may run in several processes at once.
func GuestImage(ctx context.Context, cache string) (string, error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("lab: the cache for the guest's image: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return "", fmt.Errorf("lab: the cache for the guest's image: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("lab: lock the cache for the guest's image: %w", err)
	}

	kernel, err := guestKernel()
	if err != nil {
		return "", err
	}
	initrd, err := guestInitrd(ctx, strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-"))
	if err != nil {
		return "", err
	}
	agent, err := guestAgent(ctx)
	if err != nil {
		return "", err
	}
	kernelBytes, err := os.ReadFile(kernel)
	if err != nil {
		return "", fmt.Errorf("lab: the guest's kernel: %w", err)
	}
	config, err := guestFiles.ReadFile("guest/syslinux.cfg")
	if err != nil {
		return "", err
	}

	hash := sha256.New()
	for _, input := range [][]byte{[]byte(imageVersion), kernelBytes, initrd, config} {
		fmt.Fprintf(hash, "%d\n", len(input))
		hash.Write(input)
	}
	for _, path := range agent {
		info, err := os.Stat(path)
		if err != nil {
			return "", fmt.Errorf("lab: the guest agent: %w", err)
		}
		fmt.Fprintf(hash, "%s %d %d\n", path, info.Size(), info.ModTime().Unix())
	}
	image := filepath.Join(cache, "guest-"+hex.EncodeToString(hash.Sum(nil)[:8])+".raw")
	if _, err := os.Stat(image); err == nil {
		return image, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("lab: the guest's image: %w", err)
	}
	if err := buildImage(ctx, cache, image, kernelBytes, initrd, config, agent); err != nil {
		return "", fmt.Errorf("lab: build the guest's image: %w", err)
	}
	return image, nil
}

// guestKernel returns the newest of Debian's cloud kernels.
func guestKernel() (string, error) {
	kernels, err := filepath.Glob("/boot/vmlinuz-*-cloud-amd64")
	if err != nil {
		return "", err
	}
	if len(kernels) == 0 {
		return "", errors.New("lab: no kernel for the guest in /boot: install linux-image-cloud-amd64")
	}
	slices.Sort(kernels)
	return kernels[len(kernels)-1], nil
}

// guestInitrd returns the guest's initramfs: busybox, the modules and init. It
// is small because a BIOS that is emulated in software reads it.
func guestInitrd(ctx context.Context, release string) ([]byte, error) {
	var out bytes.Buffer
	c := &cpioWriter{w: &out}
	for _, dir := range []string{"dev", "proc", "sys", "bin", "etc", "etc/acpi", "etc/acpi/PWRF", "modules"} {
		c.dir(dir)
	}
	c.char("dev/console", 5, 1)

	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return nil, fmt.Errorf("lab: busybox for the guest: %w: install busybox-static", err)
	}
	c.file("bin/busybox", busybox)
	for _, applet := range guestApplets {
		c.symlink("bin/"+applet, "busybox")
	}
	for _, script := range [][2]string{{"init", "init"}, {"etc/acpi/PWRF/00000080", "powerbutton"}} {
		body, err := guestFiles.ReadFile("guest/" + script[1])
		if err != nil {
			return nil, err
		}
		c.file(script[0], body)
	}

	var order []string
	for _, name := range guestModules {
		body, err := module(ctx, release, name)
		if err != nil {
			return nil, err
		}
		if body != nil {
			c.file("modules/"+name+".ko", body)
			order = append(order, name+".ko\n")
		}
	}
	c.file("modules/order", []byte(strings.Join(order, "")))

	return out.Bytes(), c.close()
}

// guestAgent returns the path of the guest agent and those of its libraries.
func guestAgent(ctx context.Context) ([]string, error) {
	const agent = "/usr/sbin/qemu-ga"
	libraries, err := exec.CommandContext(ctx, "ldd", agent).Output()
	if err != nil {
		return nil, fmt.Errorf("lab: the guest agent's libraries: %w: install qemu-guest-agent", err)
	}
	return append(regexp.MustCompile(`/\S+`).FindAllString(string(libraries), -1), agent), nil
}

// module returns a kernel module, decompressed, or nil when there is none of
// that name (it is built in, or this kernel has no such part).
func module(ctx context.Context, release, name string) ([]byte, error) {
	var found string
	root := "/lib/modules/" + release + "/kernel"
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		base := strings.TrimSuffix(filepath.Base(path), ".xz")
		if err == nil && !entry.IsDir() && strings.ReplaceAll(base, "-", "_") == name+".ko" {
			found = path
			return fs.SkipAll
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lab: the guest's kernel modules: %w", err)
	}
	if found == "" {
		return nil, nil
	}
	if strings.HasSuffix(found, ".xz") {
		return exec.CommandContext(ctx, "xz", "-dc", found).Output()
	}
	return os.ReadFile(found)
}

func buildImage(ctx context.Context, cache, image string, kernel, initrd, config []byte, agent []string) error {
	dir, err := os.MkdirTemp(cache, "build-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // it is in the cache, where it does no harm

	for name, body := range map[string][]byte{"vmlinuz": kernel, "initrd": initrd, "syslinux.cfg": config} {
		if err := os.WriteFile(filepath.Join(dir, name), body, 0o644); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "data", "agent"), 0o755); err != nil {
		return err
	}
	if err := run(ctx, "cp", append(append([]string{"--dereference"}, agent...), filepath.Join(dir, "data", "agent"))...); err != nil {
		return err
	}
	// -h: FAT's hidden sectors, which syslinux's boot sector adds to its own
	// block addresses.
	for _, command := range [][]string{
		{"mkfs.fat", "-F", "16", "-h", fmt.Sprint(bootStart * 2048), "-C", "boot.img", fmt.Sprint(bootSize * 1024)},
		{"mcopy", "-i", "boot.img", "vmlinuz", "initrd", "syslinux.cfg", "::"},
		{"syslinux", "--install", "boot.img"},
		{
			"mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0",
			"-d", "data", "data.img", fmt.Sprintf("%dM", dataSize),
		},
		{"truncate", "-s", fmt.Sprintf("%dM", imageSize), "disk.raw"},
		{"dd", "if=boot.img", "of=disk.raw", "bs=1M", fmt.Sprintf("seek=%d", bootStart), "conv=notrunc,sparse", "status=none"},
		{"dd", "if=data.img", "of=disk.raw", "bs=64k", fmt.Sprintf("seek=%d", dataStart*16), "conv=notrunc,sparse", "status=none"},
	} {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, out)
		}
	}

	disk, err := os.OpenFile(filepath.Join(dir, "disk.raw"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = disk.WriteAt(masterBootRecord(), 0)
	if err := errors.Join(err, disk.Close()); err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, "disk.raw"), image)
}

// masterBootRecord returns the first sector of the guest's disk: the two
// partitions, and code that moves itself out of the way to 0x600, reads the
// first partition's first sector to 0x7c00 and jumps to it.
func masterBootRecord() []byte {
	const first = bootStart * 2048
	mbr := make([]byte, 512)
	code := []byte{
		0xFA,       // cli
		0x31, 0xC0, // xor ax, ax
		0x8E, 0xD0, // mov ss, ax
		0xBC, 0x00, 0x7C, // mov sp, 0x7c00
		0x8E, 0xD8, // mov ds, ax
		0x8E, 0xC0, // mov es, ax
		0xFB,             // sti
		0xBE, 0x00, 0x7C, // mov si, 0x7c00
		0xBF, 0x00, 0x06, // mov di, 0x600
		0xB9, 0x00, 0x01, // mov cx, 256
		0xFC,       // cld
		0xF3, 0xA5, // rep movsw
		0xEA, 0x1E, 0x06, 0x00, 0x00, // jmp 0:0x61e
		0xBE, 0x2F, 0x06, // mov si, 0x62f: the packet below
		0xB4, 0x42, // mov ah, 0x42: extended read; dl is the drive
		0xCD, 0x13, // int 0x13
		0x72, 0xFE, // jc $: hang
		0xBE, 0xBE, 0x07, // mov si, 0x7be: the partition's entry
		0xEA, 0x00, 0x7C, 0x00, 0x00, // jmp 0:0x7c00
		0x10, 0x00, 0x01, 0x00, 0x00, 0x7C, 0x00, 0x00, // packet: 1 sector to 0:0x7c00
	}
	copy(mbr, code)
	binary.LittleEndian.PutUint64(mbr[len(code):], first)
	copy(mbr[0x1B8:], "OSRL") // the disk's signature

	partition := func(slot int, flag, kind byte, start, size uint32) {
		entry := mbr[0x1BE+16*slot:]
		copy(entry, []byte{flag, 0xFE, 0xFF, 0xFF, kind, 0xFE, 0xFF, 0xFF})
		binary.LittleEndian.PutUint32(entry[8:], start)
		binary.LittleEndian.PutUint32(entry[12:], size)
	}
	partition(0, 0x80, 0x0E, first, bootSize*2048)
	partition(1, 0x00, 0x83, dataStart*2048, dataSize*2048)
	mbr[510], mbr[511] = 0x55, 0xAA
	return mbr
}
