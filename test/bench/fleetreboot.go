package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/os-rescue/os-rescue/nova"
	"github.com/os-rescue/os-rescue/recover"
)

// reboot runs `os-rescue reboot` for all hosts' instances from one place, with the scan
// reports of those hosts. It locks nothing and uses no hypervisor.
func (f *fleet) reboot(ctx context.Context, b *bench) error {
	dir, err := os.MkdirTemp(f.dir, "reboot-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	scans := filepath.Join(dir, "scans.json")
	if err := f.scans(ctx, scans); err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, f.binary, "reboot", "--all", "--scan-report", scans, "--yes", "--quiet", "--output", "json")
	cmd.Env = append(os.Environ(), "OS_RESCUE_STATE_DIR="+filepath.Join(dir, "state"))
	cmd.Stderr = &stderr
	before, err := f.calls()
	if err != nil {
		return err
	}
	start := time.Now()
	out, err := cmd.Output()
	took := time.Since(start)
	if err != nil {
		return fmt.Errorf("os-rescue reboot: %w\n%s", err, stderr.Bytes())
	}
	var report recover.RunReport
	if err := json.Unmarshal(out, &report); err != nil {
		return err
	}
	if len(report.Instances) != f.all() {
		return fmt.Errorf("os-rescue reboot: %d instances, not %d", len(report.Instances), f.all())
	}
	b.Took(took / time.Duration(f.all()))
	b.Value(perEach, took.Seconds())
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		// KiB, getrusage(2). It is at least that of this process, which forked it.
		b.Value(peakName, float64(usage.Maxrss)/1024)
	}
	after, err := f.calls()
	b.Value(callsPerEach, float64(after-before)/float64(f.all()))
	return err
}

// scans writes the scan reports of the hosts, in which every file is in its place.
func (f *fleet) scans(ctx context.Context, path string) error {
	client, err := nova.Open(ctx, nova.Options{UserAgent: fleetUserAgent})
	if err != nil {
		return err
	}
	servers, err := client.Servers(ctx, recover.ServerFilter{Hosts: f.hostNames()})
	if err != nil {
		return err
	}
	var text bytes.Buffer
	for _, host := range f.hostNames() {
		scan := recover.Report{Host: host, Taken: time.Now().UTC(), Instances: []recover.Instance{}}
		for _, s := range servers {
			if s.Host == host {
				scan.Instances = append(scan.Instances, recover.Instance{
					UUID:      s.UUID,
					Domain:    s.Domain,
					ProjectID: s.ProjectID,
					State:     recover.StateRunning,
					Verdict:   recover.VerdictIntact,
					Files:     []recover.File{},
				})
			}
		}
		if err := json.NewEncoder(&text).Encode(scan); err != nil {
			return err
		}
	}
	return os.WriteFile(path, text.Bytes(), 0o600)
}
