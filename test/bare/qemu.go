package bare

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// SocketDir is where QEMU makes the socket of its NBD server.
const SocketDir = "/run/bare"

// Monitor gives a domain's QEMU a command of QMP, and decodes what it returns.
func Monitor(domain *libvirt.Domain, command string, arguments, into any) error {
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

// Backend is a device's block backend as QEMU names it.
type Backend struct {
	Device   string `json:"qdev"`
	Inserted *struct {
		Node string `json:"node-name"`
	} `json:"inserted"`
}

// Backends returns the backends of a running domain's disks, by target (vda).
func Backends(domain *libvirt.Domain) (map[string]Backend, error) {
	disks, err := Disks(domain, 0)
	if err != nil {
		return nil, err
	}
	var all []Backend
	if err := Monitor(domain, "query-block", struct{}{}, &all); err != nil {
		return nil, err
	}
	byTarget := map[string]Backend{}
	for _, d := range disks {
		for _, b := range all {
			if b.Inserted != nil && d.Alias != nil && strings.Contains(b.Device+"/", d.Alias.Name+"/") {
				byTarget[d.Target.Dev] = b
			}
		}
	}
	return byTarget, nil
}

// Disks returns the disks of a domain: of the running one (0), or of the persistent
// definition (DOMAIN_XML_INACTIVE), from which the next start makes it.
func Disks(domain *libvirt.Domain, flags libvirt.DomainXMLFlags) ([]libvirtxml.DomainDisk, error) {
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

// Source is the path of a disk in a definition; empty where it is no file.
func Source(d libvirtxml.DomainDisk) string {
	if d.Source == nil || d.Source.File == nil {
		return ""
	}
	return d.Source.File.File
}

// ReadGuest returns what the guest reads from each of its disks, through the very nodes
// that its devices use.
func ReadGuest(ctx context.Context, domain *libvirt.Domain, size uint32) (map[string][]byte, error) {
	all, err := Backends(domain)
	if err != nil {
		return nil, err
	}
	name, err := domain.GetName()
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(SocketDir, name)
	address := map[string]any{"addr": map[string]any{"type": "unix", "data": map[string]string{"path": socket}}}
	if err := Monitor(domain, "nbd-server-start", address, nil); err != nil {
		return nil, err
	}
	found := map[string][]byte{}
	for target, b := range all {
		if err = Monitor(domain, "nbd-server-add", map[string]string{"device": b.Inserted.Node}, nil); err != nil {
			break
		}
		if found[target], err = readNBD(ctx, socket, b.Inserted.Node, size); err != nil {
			break
		}
	}
	if stop := Monitor(domain, "nbd-server-stop", struct{}{}, nil); err == nil {
		err = stop
	}
	return found, err
}
