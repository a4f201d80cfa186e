package oracle

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// socketDir is where QEMU makes the socket of its NBD server.
const socketDir = "/run/oracle"

// monitor gives a domain's QEMU a command of QMP, and decodes what it returns.
func monitor(domain *libvirt.Domain, command string, arguments, into any) error {
	text, err := json.Marshal(map[string]any{"execute": command, "arguments": arguments})
	if err != nil {
		return err
	}
	answer, err := domain.QemuMonitorCommand(string(text), libvirt.DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT)
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	var reply struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Desc string `json:"desc"`
		} `json:"error"`
	}
	if err := json.Unmarshal([]byte(answer), &reply); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	if reply.Error != nil {
		return fmt.Errorf("%s: %s", command, reply.Error.Desc)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(reply.Return, into)
}

// backend is a device's block backend as QEMU names it.
type backend struct {
	Device   string `json:"qdev"`
	Inserted *struct {
		Node string `json:"node-name"`
	} `json:"inserted"`
}

// backends returns the backends of a running domain's disks, by target (vda).
func backends(domain *libvirt.Domain) (map[string]backend, error) {
	disks, err := definition(domain, 0)
	if err != nil {
		return nil, err
	}
	var all []backend
	if err := monitor(domain, "query-block", struct{}{}, &all); err != nil {
		return nil, err
	}
	byTarget := map[string]backend{}
	for _, d := range disks {
		for _, b := range all {
			if b.Inserted != nil && d.Alias != nil && strings.Contains(b.Device+"/", d.Alias.Name+"/") {
				byTarget[d.Target.Dev] = b
			}
		}
	}
	return byTarget, nil
}

// definition returns the disks of a domain: of the running one (0), or of the persistent
// definition (DOMAIN_XML_INACTIVE), from which the next start makes it.
func definition(domain *libvirt.Domain, flags libvirt.DomainXMLFlags) ([]libvirtxml.DomainDisk, error) {
	text, err := domain.GetXMLDesc(flags)
	if err != nil {
		return nil, err
	}
	var parsed libvirtxml.Domain
	if err := parsed.Unmarshal(text); err != nil {
		return nil, err
	}
	return parsed.Devices.Disks, nil
}

// source is the path of a disk in a definition; empty where it is no file.
func source(d libvirtxml.DomainDisk) string {
	if d.Source == nil || d.Source.File == nil {
		return ""
	}
	return d.Source.File.File
}

// readGuest returns what the guest reads from each of its disks, through the very nodes
// that its devices use.
func readGuest(ctx context.Context, domain *libvirt.Domain) (map[string][]byte, error) {
	all, err := backends(domain)
	if err != nil {
		return nil, err
	}
	name, err := domain.GetName()
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(socketDir, name)
	address := map[string]any{"addr": map[string]any{"type": "unix", "data": map[string]string{"path": socket}}}
	if err := monitor(domain, "nbd-server-start", address, nil); err != nil {
		return nil, err
	}
	found := map[string][]byte{}
	for target, b := range all {
		if err = monitor(domain, "nbd-server-add", map[string]string{"device": b.Inserted.Node}, nil); err != nil {
			break
		}
		if found[target], err = readNBD(ctx, socket, b.Inserted.Node, diskSize); err != nil {
			break
		}
	}
	if stop := monitor(domain, "nbd-server-stop", struct{}{}, nil); err == nil {
		err = stop
	}
	return found, err
}

// writeGuest writes one chunk as the guest would, and has QEMU flush it.
func writeGuest(domain *libvirt.Domain, target string, chunk int, pattern byte) error {
	all, err := backends(domain)
	if err != nil {
		return err
	}
	b, ok := all[target]
	if !ok {
		return fmt.Errorf("%s has no backend", target)
	}
	for _, command := range []string{fmt.Sprintf("write -P %d %d %d", pattern, chunk*chunkSize, chunkSize), "flush"} {
		line := fmt.Sprintf("qemu-io -d %s %q", b.Device, command)
		out, err := domain.QemuMonitorCommand(line, libvirt.DOMAIN_QEMU_MONITOR_COMMAND_HMP)
		if err != nil {
			return err
		}
		if out = strings.TrimSpace(out); out != "" {
			return fmt.Errorf("%s: %s", command, out)
		}
	}
	return nil
}
