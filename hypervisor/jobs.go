package hypervisor

import (
	"context"
	"errors"

	"libvirt.org/go/libvirt"

	"github.com/os-rescue/os-rescue/recover"
)

// jobUnknown stands for a job when libvirt could not answer. That domain is then left
// alone as if it had a job, and the others are not affected.
const jobUnknown = "unknown"

const jobArriving = "migration in"

// jobs adds the current domain job and block jobs to an active domain. The XML's
// <mirror> has named some already; libvirt's own list adds those that have no mirror
// (pull, commit, backup).
func jobs(ctx context.Context, dom *libvirt.Domain, d *recover.Domain) error {
	job, err := jobOf(ctx, dom, d.Name)
	switch {
	case err == nil:
		d.Job = job
	case errors.Is(err, libvirt.ERR_OPERATION_INVALID) && d.PauseReason == recover.PauseMigration:
		// It arrives: "migration statistics are available only on the source host"
		// (qemuDomainGetJobStatsInternal in libvirt's src/qemu/qemu_driver.c), and no query gets its lock.
		d.Job = jobArriving
		return nil
	case fatal(err):
		return err
	default:
		d.Job = jobUnknown
	}
	for _, disk := range d.Disks {
		if disk.Chain[0].Source == recover.SourceNone {
			continue
		}
		job, err := blockJobOf(ctx, dom, d.Name, disk.Target)
		kind := jobUnknown
		switch {
		case err == nil:
			kind = blockJobName(job.Type)
		case fatal(err):
			return err
		}
		if kind != "" && d.BlockJobs[disk.Target] == "" {
			if d.BlockJobs == nil {
				d.BlockJobs = map[string]string{}
			}
			d.BlockJobs[disk.Target] = kind
		}
	}
	return nil
}

// jobOf names the current domain job; empty when there is none.
func jobOf(ctx context.Context, dom *libvirt.Domain, name string) (string, error) {
	var info *libvirt.DomainJobInfo
	err := timed(ctx, "virDomainGetJobStats", name, func() (err error) {
		info, err = dom.GetJobStats(0)
		return err
	})
	if err != nil {
		return "", err
	}
	return jobName(info), nil
}

// blockJobOf returns the block job of a disk.
func blockJobOf(ctx context.Context, dom *libvirt.Domain, name, target string) (*libvirt.DomainBlockJobInfo, error) {
	var job *libvirt.DomainBlockJobInfo
	err := timed(ctx, "virDomainGetBlockJobInfo", name, func() (err error) {
		job, err = dom.GetBlockJobInfo(target, 0)
		return err
	})
	return job, err
}

// fatal reports whether the connection failed or the domain is gone. It is false for
// an error of a domain whose QEMU or job lock does not answer, and for an internal one: a
// libvirtd that was restarted during a backup has lost its data ("backup job data missing").
func fatal(err error) bool {
	for _, code := range []libvirt.ErrorNumber{
		libvirt.ERR_OPERATION_TIMEOUT,
		libvirt.ERR_OPERATION_FAILED,
		libvirt.ERR_OPERATION_UNSUPPORTED,
		libvirt.ERR_NO_SUPPORT,
		libvirt.ERR_INTERNAL_ERROR,
	} {
		if errors.Is(err, code) {
			return false
		}
	}
	return true
}

// jobName names a domain job; empty when there is none
// (virDomainJobOperation in libvirt's include/libvirt/libvirt-domain.h).
func jobName(info *libvirt.DomainJobInfo) string {
	if info.Type != libvirt.DOMAIN_JOB_BOUNDED && info.Type != libvirt.DOMAIN_JOB_UNBOUNDED {
		return ""
	}
	names := map[libvirt.DomainJobOperationType]string{
		libvirt.DOMAIN_JOB_OPERATION_START:           "start",
		libvirt.DOMAIN_JOB_OPERATION_SAVE:            "save",
		libvirt.DOMAIN_JOB_OPERATION_RESTORE:         "restore",
		libvirt.DOMAIN_JOB_OPERATION_MIGRATION_IN:    jobArriving,
		libvirt.DOMAIN_JOB_OPERATION_MIGRATION_OUT:   "migration out",
		libvirt.DOMAIN_JOB_OPERATION_SNAPSHOT:        "snapshot",
		libvirt.DOMAIN_JOB_OPERATION_SNAPSHOT_REVERT: "snapshot revert",
		libvirt.DOMAIN_JOB_OPERATION_SNAPSHOT_DELETE: "snapshot delete",
		libvirt.DOMAIN_JOB_OPERATION_DUMP:            "dump",
		libvirt.DOMAIN_JOB_OPERATION_BACKUP:          "backup",
	}
	if name := names[info.Operation]; info.OperationSet && name != "" {
		return name
	}
	return jobUnknown
}

// blockJobName names a block job; empty when there is none: libvirt answers
// type 0 for a disk without one.
func blockJobName(kind libvirt.DomainBlockJobType) string {
	switch kind {
	case libvirt.DOMAIN_BLOCK_JOB_TYPE_UNKNOWN:
		return ""
	case libvirt.DOMAIN_BLOCK_JOB_TYPE_PULL:
		return "pull"
	case libvirt.DOMAIN_BLOCK_JOB_TYPE_COPY:
		return "copy"
	case libvirt.DOMAIN_BLOCK_JOB_TYPE_COMMIT:
		return "commit"
	case libvirt.DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT:
		return "active-commit"
	case libvirt.DOMAIN_BLOCK_JOB_TYPE_BACKUP:
		return "backup"
	default:
		return jobUnknown
	}
}
