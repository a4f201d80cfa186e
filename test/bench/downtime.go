package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/os-rescue/os-rescue/test/lab"
)

// downtime measures the time in which a guest does not run, from its suspend on.
type downtime struct {
	scene *scene
	lab   *lab.Lab
	guest *lab.Instance
}

// byHand is the manual way, and liveMode a contender's name.
const (
	byHand   = "virsh suspend, cp, virsh destroy, cp, virsh start"
	liveMode = "os-rescue, mode live"
)

// backupDir is where the manual way keeps its copies, on the guest's file system.
const backupDir = lab.NovaDir + "/backup"

// downtimeFigures rescue a guest with so much data in three ways.
func downtimeFigures(o options) []figure {
	var figures []figure
	for _, size := range o.downtime {
		d := &downtime{}
		figures = append(figures, figure{
			Name: fmt.Sprintf("downtime: a guest with %d MiB of data", size>>20),
			Goal: all(halfOf(byHand), peerWithin(liveMode, 300*time.Millisecond)),
			setup: func(ctx context.Context, _ *bench) (func(), error) {
				return func() { d.scene.Close() }, d.setup(ctx, size)
			},
			before: func(context.Context, *bench) error { return d.scene.try(func() { d.lab.DeleteTree(d.scene) }) },
			ours:   contender{"os-rescue, mode reboot", d.rescue("reboot")},
			peers:  []contender{{byHand, d.manual}, {liveMode, d.rescue("live")}},
		})
	}
	return figures
}

// halfOf asks for at most half of a peer's time.
func halfOf(peer string) goal {
	return goal{Text: "≤ half of the manual way", met: func(r result) bool {
		n := slices.IndexFunc(r.Contenders, func(m measured) bool { return m.Name == peer })
		return n >= 0 && r.Contenders[n].Ratio >= 2
	}}
}

// peerWithin asks for at most so much time of one of os-rescue's other ways.
func peerWithin(peer string, limit time.Duration) goal {
	return goal{Text: peer + " ≤ " + limit.String(), met: func(r result) bool {
		n := slices.IndexFunc(r.Contenders, func(m measured) bool { return m.Name == peer })
		return n >= 0 && r.Contenders[n].Median <= limit.Seconds()
	}}
}

// setup boots a guest with a qcow2 disk that it writes, and so much random data
// on a second one.
func (d *downtime) setup(ctx context.Context, size int64) error {
	d.scene = &scene{ctx: ctx}
	err := d.scene.try(func() {
		// The deleted files, the backup, and the files that are back.
		d.lab = lab.New(d.scene, lab.Options{Size: (3*size + guestRoom) / 9 * 10})
		d.scene.binary = d.lab.Binary(d.scene)
		d.guest = d.lab.Define(d.scene, lab.Spec{Swap: "raw", LogAppend: true, NoAgent: true})
		if err := random(filepath.Join(d.guest.Dir, "disk.swap"), size); err != nil {
			d.scene.Fatalf("%v", err)
		}
		d.guest.Start(d.scene)
		d.guest.WaitBoot(d.scene, 1)
	})
	if err != nil {
		d.scene.Close()
	}
	return err
}

// rescue is os-rescue's way, in one of its modes.
func (d *downtime) rescue(mode string) func(context.Context, *bench) error {
	return func(ctx context.Context, b *bench) error {
		began := time.Now()
		var stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, d.scene.binary, "--instance", d.guest.UUID, "--offline", "--mode", mode, "--yes", "--output", "json")
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("a rescue: %w\n%s%s", err, out, stderr.Bytes())
		}
		var report struct {
			Instances []struct {
				Outcome         string  `json:"outcome"`
				PauseSeconds    float64 `json:"pause_seconds"`
				DowntimeSeconds float64 `json:"downtime_seconds"`
			} `json:"instances"`
		}
		if err := json.Unmarshal(out, &report); err != nil {
			return err
		}
		if len(report.Instances) != 1 || report.Instances[0].Outcome != "rescued" {
			return fmt.Errorf("it was not rescued: %s", out)
		}
		took := report.Instances[0].DowntimeSeconds
		if mode == "live" {
			took = report.Instances[0].PauseSeconds
		}
		b.Took(time.Duration(took * float64(time.Second)))
		b.Value("whole run s", time.Since(began).Seconds())
		return nil
	}
}

// manual is the way of an operator with virsh and cp. It proves nothing.
func (d *downtime) manual(ctx context.Context, b *bench) error {
	var held map[string]lab.OpenFile
	if err := d.scene.try(func() { held = d.guest.OpenFiles(d.scene) }); err != nil {
		return err
	}
	pid := d.guest.QemuPID()
	virsh := func(args ...string) error {
		return command(ctx, "virsh", append([]string{"--quiet", "--connect", "qemu:///system"}, args...)...)
	}
	defer func() { _ = os.RemoveAll(backupDir) }()

	began := time.Now()
	if err := virsh("suspend", d.guest.Name); err != nil {
		return err
	}
	for path, file := range held {
		to := filepath.Join(backupDir, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		if err := command(ctx, "cp", fmt.Sprintf("/proc/%d/fd/%d", pid, file.FD), to); err != nil {
			return err
		}
	}
	if err := virsh("destroy", d.guest.Name); err != nil {
		return err
	}
	for path := range held {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := command(ctx, "cp", filepath.Join(backupDir, path), path); err != nil {
			return err
		}
		if err := command(ctx, "chown", "libvirt-qemu:kvm", path); err != nil {
			return err
		}
		if err := command(ctx, "chmod", "0644", path); err != nil {
			return err
		}
	}
	if err := virsh("start", d.guest.Name); err != nil {
		return err
	}
	b.Took(time.Since(began))
	return nil
}

// sizesIn reads sizes in MiB, separated by commas.
func sizesIn(list string) ([]int64, error) {
	var sizes []int64
	for part := range bytes.SplitSeq([]byte(list), []byte(",")) {
		n, err := strconv.ParseInt(string(part), 10, 64)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is not a list of sizes in MiB, like 1024,4096", list)
		}
		sizes = append(sizes, n<<20)
	}
	return sizes, nil
}
