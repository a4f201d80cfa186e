package hypervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/os-rescue/os-rescue/recover"
)

const (
	exportSocket = "os-rescue-export.sock"
	// masterKey is a file in the domain's private directory. Its path is on QEMU's
	// command line (qemuDomainGetMasterKeyFilePath in libvirt's src/qemu/qemu_domain.c).
	masterKey = "/master-key.aes"
)

// exports serve the disks of active domains as they are at one moment.
type exports struct {
	*connections
	runDir
}

// Export begins a backup of disks in pull mode (virDomainBackupBegin) and returns the
// path of its socket. QEMU serves the disks over NBD as they are at this moment, and
// copies data to the scratch files before the guest overwrites it
// (https://libvirt.org/formatbackup.html). Other disks are not served. The socket is
// in the domain's private directory, where QEMU may make one. Errors:
// recover.ErrNoDomain; ErrState when the domain is not active, has a job, lacks one of
// the disks, or its private directory can't be found; recover.ErrUnavailable, after
// which the backup may have begun; libvirt's own.
func (e exports) Export(ctx context.Context, uuid string, disks []recover.ExportDisk) (string, error) {
	socket := ""
	err := e.apply(ctx, uuid, change{
		name: "exporting the disks of", call: "virDomainBackupBegin",
		do: func(dom *libvirt.Domain) error {
			doc, err := e.backupXML(ctx, dom, disks, &socket)
			if err != nil {
				return err
			}
			return dom.BackupBegin(doc, "", 0)
		},
		reached: func(ctx context.Context, dom *libvirt.Domain, name string, issued bool) (bool, error) {
			s, err := stateOf(ctx, dom, name)
			switch {
			case err != nil:
				return false, err
			case !s.active:
				return false, fmt.Errorf("%w: it is %s", ErrState, s.state)
			}
			job, err := jobOf(ctx, dom, name)
			switch {
			case err != nil || job == "":
				return false, err
			case issued && job == backupJob:
				return true, nil
			}
			return false, fmt.Errorf("%w: it has a job (%s)", ErrState, job)
		},
	})
	return socket, err
}

// backupXML describes the backup of disks of a live domain, and sets socket to the
// path at which it can be read.
func (e exports) backupXML(ctx context.Context, dom *libvirt.Domain, disks []recover.ExportDisk, socket *string) (string, error) {
	name, err := dom.GetName()
	if err != nil {
		return "", err
	}
	dir, err := e.privateDir(name)
	if err != nil {
		return "", err
	}
	doc, err := xmlOf(ctx, dom, name, 0)
	if err != nil {
		return "", err
	}
	d, _, err := parseDomain(doc)
	if err != nil {
		return "", err
	}
	scratch := map[string]string{}
	for _, want := range disks {
		if !slices.ContainsFunc(d.Disks, func(disk recover.Disk) bool { return disk.Target == want.Target }) {
			return "", fmt.Errorf("%w: it has no disk %s", ErrState, want.Target)
		}
		scratch[want.Target] = want.Scratch
	}
	pull := &libvirtxml.DomainBackupPull{Disks: &libvirtxml.DomainBackupPullDisks{}}
	for _, disk := range d.Disks {
		one := libvirtxml.DomainBackupPullDisk{Name: disk.Target, Backup: "no"}
		if path := scratch[disk.Target]; path != "" {
			one.Backup, one.ExportName = "yes", disk.Target
			one.Scratch = &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: path}}
		}
		pull.Disks.Disks = append(pull.Disks.Disks, one)
	}
	*socket = filepath.Join(dir, exportSocket)
	pull.Server = &libvirtxml.DomainBackupPullServer{UNIX: &libvirtxml.DomainBackupPullServerUNIX{Socket: *socket}}
	return (&libvirtxml.DomainBackup{Pull: pull}).Marshal()
}

// privateDir is the directory of an active domain that its QEMU may write in.
func (e exports) privateDir(name string) (string, error) {
	pid := e.pid(name)
	args, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return "", fmt.Errorf("%w: the command line of its QEMU can't be read: %w", ErrState, err)
	}
	for arg := range bytes.SplitSeq(args, []byte{0}) {
		before, _, found := strings.Cut(string(arg), masterKey)
		if at := strings.LastIndexAny(before, `"=`); found && at >= 0 && filepath.IsAbs(before[at+1:]) {
			return before[at+1:], nil
		}
	}
	return "", fmt.Errorf("%w: the private directory of its QEMU is not known", ErrState)
}

// backupJob is what jobName calls a backup.
const backupJob = "backup"

// EndExport ends the backup job that Export began (virDomainAbortJob) and waits until
// libvirt has removed its scratch files, which happens before it forgets the job
// (qemuBackupNotifyBlockjobEnd in its src/qemu/qemu_backup.c). It succeeds if there is
// no job, if the domain is off, and if there is no domain. Errors: ErrState when the
// domain has another kind of job; recover.ErrUnavailable.
func (e exports) EndExport(ctx context.Context, uuid string) error {
	err := e.apply(ctx, uuid, change{
		name: "ending the export of the disks of", call: "virDomainAbortJob",
		do: func(dom *libvirt.Domain) error {
			if err := dom.AbortJob(); err != nil {
				return err
			}
			for start := time.Now(); time.Since(start) < goneLimit; time.Sleep(gonePoll) {
				job, err := jobOf(ctx, dom, uuid)
				if err != nil || job == "" {
					return err
				}
			}
			return fmt.Errorf("%w: its backup job goes on %s after its end", ErrState, goneLimit)
		},
		reached: func(ctx context.Context, dom *libvirt.Domain, name string, _ bool) (bool, error) {
			s, err := stateOf(ctx, dom, name)
			if err != nil || !s.active {
				return err == nil, err
			}
			job, err := jobOf(ctx, dom, name)
			if err != nil || job == "" {
				return err == nil, err
			}
			if job != backupJob {
				return false, fmt.Errorf("%w: it has another job (%s)", ErrState, job)
			}
			return false, nil
		},
	})
	if errors.Is(err, recover.ErrNoDomain) {
		return nil
	}
	return err
}
