package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/os-rescue/os-rescue/recover"
)

// starts tells what a start needs.
type starts struct {
	*connections
	runDir
}

// StartNeeds returns what a start of the domain's persistent definition needs beside its
// disks: the emulator, firmware and a direct boot's files; and what the host lacks for it:
// a network that is active, a machine that the emulator knows, virtlogd. It starts none of
// it, but a connection to virtlogd's socket has systemd start that, where it waits for one.
// recover.ErrNoDomain when there is no such domain.
func (s starts) StartNeeds(ctx context.Context, uuid string) (recover.StartNeeds, error) {
	needs, err := read(ctx, s.connections, func(conn *libvirt.Connect) (recover.StartNeeds, error) {
		dom, err := lookup(ctx, conn, uuid)
		if err != nil {
			return recover.StartNeeds{}, err
		}
		defer func() { _ = dom.Free() }()
		doc, err := xmlOf(ctx, dom, uuid, libvirt.DOMAIN_XML_INACTIVE)
		if err != nil {
			return recover.StartNeeds{}, err
		}
		def, err := definition(doc)
		if err != nil {
			return recover.StartNeeds{}, err
		}
		needs := recover.StartNeeds{Files: neededFiles(def), Kept: keptState(def)}
		for _, lack := range []func() (string, error){
			func() (string, error) { return machineLack(ctx, conn, def) },
			func() (string, error) { return networkLack(ctx, conn, def) },
			func() (string, error) { return s.virtlogdLack(ctx, def.Name), nil },
		} {
			text, err := lack()
			if err != nil {
				return needs, err
			}
			if text != "" {
				needs.Lacking = append(needs.Lacking, text)
			}
		}
		return needs, nil
	})
	if err != nil {
		return recover.StartNeeds{}, fmt.Errorf("asking what a start of domain %s needs: %w", uuid, err)
	}
	return needs, nil
}

// neededFiles reads from a definition which files of the host a start opens or runs.
func neededFiles(def *libvirtxml.Domain) []recover.NeededFile {
	var files []recover.NeededFile
	add := func(path, what string) {
		if path = strings.TrimSpace(path); filepath.IsAbs(path) {
			files = append(files, recover.NeededFile{Path: path, What: what})
		}
	}
	if def.Devices != nil {
		add(def.Devices.Emulator, "its emulator")
		for n := range files {
			files[n].Executable = true
		}
	}
	if os := def.OS; os != nil {
		if os.Loader != nil {
			add(os.Loader.Path, "its firmware")
		}
		if os.NVRam != nil {
			before := len(files)
			add(os.NVRam.Template, "the template of its UEFI variables")
			for n := range files[before:] {
				files[before+n].OnlyNova = true
			}
		}
		add(os.Kernel, "the kernel of its direct boot")
		add(os.Initrd, "the initrd of its direct boot")
		add(os.DTB, "the device tree of its direct boot")
	}
	return files
}

// swtpmDir is where libvirt keeps the states of emulated TPMs, if the definition names no other
// place (swtpmStorageDir in libvirt's src/qemu/qemu_conf.c).
const swtpmDir = "/var/lib/libvirt/swtpm"

// keptState reads from a definition which state beside the disks a start finds again. Where the
// directory of a TPM is missing or empty, libvirt makes a new TPM there
// (qemuTPMEmulatorCreateStorage in its src/qemu/qemu_tpm.c). Where the file of a memory device is
// missing, the start fails when libvirt gives it its owner ("unable to stat", libvirt 9.0); with
// dynamic_ownership=0 QEMU makes it anew (file_ram_open in its softmmu/physmem.c).
func keptState(def *libvirtxml.Domain) []recover.KeptState {
	if def.Devices == nil {
		return nil
	}
	var kept []recover.KeptState
	for _, t := range def.Devices.TPMs {
		if t.Backend == nil || t.Backend.Emulator == nil {
			continue
		}
		path := swtpmPath(strings.ToLower(strings.TrimSpace(def.UUID)), t.Backend.Emulator)
		if filepath.IsAbs(path) {
			kept = append(kept, recover.KeptState{Path: path, What: "the state of its TPM", Loss: recover.LossVTPM})
		}
	}
	for _, m := range def.Devices.Memorydevs {
		isData := m.Model == "nvdimm" || m.Model == "virtio-pmem"
		if isData && m.Source != nil && filepath.IsAbs(m.Source.Path) {
			kept = append(kept, recover.KeptState{Path: m.Source.Path, What: "its persistent memory", Loss: recover.LossVPMEM})
		}
	}
	return kept
}

// swtpmPath returns where the state of an emulated TPM is. libvirt writes its
// version into a definition.
func swtpmPath(uuid string, t *libvirtxml.DomainTPMBackendEmulator) string {
	switch s := t.Source; {
	case s != nil && s.File != nil:
		return s.File.Path
	case s != nil && s.Dir != nil:
		return s.Dir.Path
	case t.Version == "1.2":
		return filepath.Join(swtpmDir, uuid, "tpm1.2")
	case t.Version == "2.0":
		return filepath.Join(swtpmDir, uuid, "tpm2")
	}
	return filepath.Join(swtpmDir, uuid)
}

// machineLack asks libvirt whether the emulator that it has now knows the machine, and
// can run it in the domain's way: "the machine '...' is not supported by emulator '...'",
// "KVM is not supported by '...' on this host" (virConnectGetDomainCapabilities). If there is
// no emulator at all, that is the emulator's lack.
func machineLack(ctx context.Context, conn *libvirt.Connect, def *libvirtxml.Domain) (string, error) {
	if def.OS == nil || def.OS.Type == nil || def.Devices == nil {
		return "", nil
	}
	emulator := strings.TrimSpace(def.Devices.Emulator)
	kind := def.OS.Type
	err := timed(ctx, "virConnectGetDomainCapabilities", def.Name, func() error {
		_, err := conn.GetDomainCapabilities(emulator, kind.Arch, kind.Machine, def.Type, 0)
		return err
	})
	switch {
	case err == nil:
		return "", nil
	case errors.Is(err, libvirt.ERR_INVALID_ARG), errors.Is(err, libvirt.ERR_CONFIG_UNSUPPORTED):
		return fmt.Sprintf("libvirt can't run it on this host any more (%v): another QEMU was installed, or its emulation was removed", err), nil
	case alive(conn):
		return "", nil // it does not tell: an emulator that is missing is said of the file
	default:
		return "", err
	}
}

// networkLack asks libvirt for the networks that the domain's interfaces are on. A start
// fails without one, and does not activate it (virDomainNetResolveActualType in libvirt's
// src/conf/domain_conf.c).
func networkLack(ctx context.Context, conn *libvirt.Connect, def *libvirtxml.Domain) (string, error) {
	for _, name := range networksOf(def) {
		active := false
		err := timed(ctx, "virNetworkLookupByName", def.Name, func() error {
			network, err := conn.LookupNetworkByName(name)
			if err != nil {
				return err
			}
			defer func() { _ = network.Free() }()
			active, err = network.IsActive()
			return err
		})
		switch {
		case errors.Is(err, libvirt.ERR_NO_NETWORK):
			return fmt.Sprintf("libvirt knows no network %q, which its definition names: define it (virsh net-define), or virsh edit %s",
				name, def.Name), nil
		case err != nil && alive(conn):
			return fmt.Sprintf("libvirt does not tell of network %q (%v): is virtnetworkd running?", name, err), nil
		case err != nil:
			return "", err
		case !active:
			return fmt.Sprintf("libvirt's network %q is not active: virsh net-start %s", name, name), nil
		}
	}
	return "", nil
}

// networksOf returns the names of the networks of a definition's interfaces, each once.
func networksOf(def *libvirtxml.Domain) []string {
	var names []string
	if def.Devices == nil {
		return nil
	}
	for _, i := range def.Devices.Interfaces {
		if i.Source == nil || i.Source.Network == nil || slices.Contains(names, i.Source.Network.Network) {
			continue
		}
		names = append(names, i.Source.Network.Network)
	}
	return names
}

// virtlogdLimit bounds the wait for a connection to virtlogd.
const virtlogdLimit = 3 * time.Second

// virtlogdLack says that virtlogd does not answer; empty when it does, or is not needed.
// Unless qemu.conf's stdio_handler is "file", every start asks virtlogd for the pipe that is
// QEMU's standard error (qemuLogContextNew in libvirt's src/qemu/qemu_logcontext.c), and
// libvirtd starts no virtlogd of its own. Of a domain that runs its QEMU tells: with "file" that
// descriptor is no pipe. Of one that is off nobody tells, and a socket that was never there
// says that nobody uses virtlogd.
func (s starts) virtlogdLack(ctx context.Context, domain string) string {
	pid := s.pid(domain)
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/2", pid))
	logs := err == nil && strings.HasPrefix(link, "pipe:")
	if pid != 0 && err == nil && !logs {
		return ""
	}
	socket := filepath.Join(filepath.Dir(string(s.runDir)), "virtlogd-sock")
	dialer := net.Dialer{Timeout: virtlogdLimit}
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err == nil {
		_ = conn.Close()
		return ""
	}
	if !logs && errors.Is(err, os.ErrNotExist) {
		return ""
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = errno
	}
	return fmt.Sprintf("virtlogd does not answer (%s: %v), without which libvirt starts no domain: "+
		"systemctl start virtlogd.socket virtlogd", socket, err)
}
