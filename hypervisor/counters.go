package hypervisor

import (
	"context"
	"fmt"

	"libvirt.org/go/libvirt"

	"github.com/os-rescue/os-rescue/recover"
)

// Counters returns the write statistics of every disk of an active domain, by
// target, in one call (virDomainListGetStats, group block). Without its backing flag
// libvirt returns top images only. It works on a paused domain and on one whose files
// are deleted, because all numbers come from QEMU and none from a path.
//
// The meaning of the numbers, measured with libvirt 9.0 and QEMU 7.2:
//   - allocation is QEMU's wr_highest_offset of the node that holds the file, for
//     qcow2 and raw alike: the end of the highest byte in the file that this QEMU
//     wrote, 0 before its first write.
//   - physical is QEMU's actual-size, the bytes that the file occupies
//     (st_blocks × 512), not its length: it changes without a write of the guest
//     when the file system allocates late.
//
// Errors: recover.ErrNoDomain; ErrState when the domain is not active;
// ErrNoStatistics when a disk's numbers are missing. libvirt itself does not report
// that (qemuDomainGetStatsBlock in its src/qemu/qemu_driver.c).
func (r reader) Counters(ctx context.Context, uuid string) (map[string]recover.BlockCounters, error) {
	counters, err := read(ctx, r.connections, func(conn *libvirt.Connect) (map[string]recover.BlockCounters, error) {
		dom, err := lookup(ctx, conn, uuid)
		if err != nil {
			return nil, err
		}
		defer func() { _ = dom.Free() }()
		active := false
		err = timed(ctx, "virDomainIsActive", uuid, func() (err error) {
			active, err = dom.IsActive()
			return err
		})
		if err != nil {
			return nil, err
		}
		if !active {
			return nil, fmt.Errorf("%w: it is not active", ErrState)
		}
		var all []libvirt.DomainStats
		err = timed(ctx, "virDomainListGetStats", uuid, func() (err error) {
			all, err = conn.GetAllDomainStats(
				[]*libvirt.Domain{dom},
				libvirt.DOMAIN_STATS_BLOCK,
				libvirt.CONNECT_GET_ALL_DOMAINS_STATS_ENFORCE_STATS,
			)
			return err
		})
		if err != nil {
			return nil, err
		}
		defer func() {
			for _, s := range all {
				_ = s.Domain.Free()
			}
		}()
		if len(all) != 1 { // it vanished since the look-up
			return nil, recover.ErrNoDomain
		}
		return blockCounters(all[0].Block)
	})
	if err != nil {
		return nil, fmt.Errorf("reading the block statistics of domain %s: %w", uuid, err)
	}
	return counters, nil
}

// blockCounters selects the top images' numbers. An entry without a path is an empty
// drive.
func blockCounters(blocks []libvirt.DomainStatsBlock) (map[string]recover.BlockCounters, error) {
	counters := make(map[string]recover.BlockCounters, len(blocks))
	for _, b := range blocks {
		if !b.WrReqsSet || !b.WrBytesSet || !b.FlReqsSet {
			if b.PathSet {
				return nil, fmt.Errorf("%w for disk %s", ErrNoStatistics, b.Name)
			}
			continue
		}
		if _, seen := counters[b.Name]; seen {
			continue // a backing file's
		}
		counters[b.Name] = recover.BlockCounters{
			WriteRequests: int64(b.WrReqs),
			WriteBytes:    int64(b.WrBytes),
			FlushRequests: int64(b.FlReqs),
			HighestOffset: b.Allocation,
		}
	}
	return counters, nil
}
