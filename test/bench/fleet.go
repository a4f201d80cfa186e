package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/os-rescue/os-rescue/nova"
	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/openstack"
)

// fleetCommand has the program measure the fleet, inside a bed.
const fleetCommand = "fleet"

// The hosts of the fleet, and one more with only as many instances as a shell loop can
// rescue in reasonable time.
const (
	fleetHosts     = 5
	fleetInstances = 100 // on each
	loopInstances  = 20
	quickHosts     = 2
	quickFleet     = 4
	quickLoop      = 2
	callsPerEach   = "Nova calls each"
	fleetUserAgent = "os-rescue/bench"
)

// fleetFigures measures Nova's part of a rescue: instances are listed, locked, hard
// rebooted, awaited and unlocked, on an OpenStack whose compute services have Nova's
// fake driver.
func fleetFigures(o options) []figure {
	return []figure{{
		Name:  fmt.Sprintf("fleet: a rescue through Nova, per instance, %d on %d hosts", newFleet(o.quick).all(), newFleet(o.quick).hosts),
		Goal:  all(timesFaster(10), atMost(peakName, mostMiB)),
		apart: measureApart,
	}}
}

// measureApart has the figure measured inside a bed, in which an OpenStack is alone
// with itself.
func measureApart(ctx context.Context, b *bench) (all []measured, err error) {
	o := openstack.Options{Dir: filepath.Join(b.dir, "bed"), Progress: os.Stderr, Bound: true, FakeComputes: newFleet(b.quick).hosts + 1}
	bed, err := openstack.Up(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bed.Purge(context.WithoutCancel(ctx))) }()
	out := filepath.Join(bed.Dir(), "fleet.json")
	args := []string{"/proc/self/exe", fleetCommand, out}
	if b.quick {
		args = append(args, "quick")
	}
	code, err := bed.Exec(ctx, openstack.Command{Args: args, Stdout: os.Stderr})
	if err == nil && code != 0 {
		err = fmt.Errorf("the measuring program inside the bed: exit code %d", code)
	}
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	return all, json.Unmarshal(data, &all)
}

// runFleet is the program inside the bed.
func runFleet(ctx context.Context, out string, quick bool) (err error) {
	dir, err := os.MkdirTemp("", "os-rescue-bench-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil { // qemu-img, which checks the images, is not root
		return err
	}
	f := newFleet(quick)
	f.dir, f.binary = dir, filepath.Join(dir, "os-rescue")
	if err := command(ctx, "go", "build", "-o", f.binary, "./cmd/os-rescue"); err != nil {
		return err
	}
	if err := f.up(ctx); err != nil {
		return err
	}
	b := &bench{dir: dir, quick: quick}
	var all []measured
	for _, c := range f.contenders() {
		fmt.Fprintln(os.Stderr, "measuring:", c.Name)
		var m measured
		if err := m.turn(ctx, c, b); err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		all = append(all, m)
	}
	data, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return os.WriteFile(out, data, 0o600)
}

// fleet is an OpenStack with instances on fake hosts.
type fleet struct {
	hosts, each, loop int

	dir    string
	binary string
	bed    *openstack.Bed
	few    []string // the instances of the last host
}

func newFleet(quick bool) *fleet {
	if quick {
		return &fleet{hosts: quickHosts, each: quickFleet, loop: quickLoop}
	}
	return &fleet{hosts: fleetHosts, each: fleetInstances, loop: loopInstances}
}

// all is the number of instances, without the last host's.
func (f *fleet) all() int { return f.hosts * f.each }

// hostNames are the names of all hosts but the last.
func (f *fleet) hostNames() []string {
	var names []string
	for n := range f.hosts {
		names = append(names, openstack.FakeHost(n+1))
	}
	return names
}

// last is the host with only few instances.
func (f *fleet) last() string { return openstack.FakeHost(f.hosts + 1) }

// up makes the instances.
func (f *fleet) up(ctx context.Context) error {
	f.bed = openstack.Open(openstack.Options{})
	owner, err := f.bed.Client(ctx, "admin", "demo")
	if err != nil {
		return err
	}
	for _, variable := range f.bed.Env(openstack.Rescuer, openstack.RescueProject) {
		name, value, _ := bytes.Cut([]byte(variable), []byte("="))
		if err := os.Setenv(string(name), string(value)); err != nil {
			return err
		}
	}
	if err := os.Setenv("OS_COMPUTE_API_VERSION", "2.92"); err != nil { // lock --reason needs 2.73
		return err
	}
	var g errgroup.Group
	for n := range f.hosts {
		g.Go(func() error {
			_, err := owner.FakeInstances(ctx, openstack.FakeHost(n+1), f.each)
			return err
		})
	}
	g.Go(func() (err error) {
		f.few, err = owner.FakeInstances(ctx, f.last(), f.loop)
		return err
	})
	return g.Wait()
}

// contenders are os-rescue with all instances, the shell loop with a few, os-rescue
// with those few, and `os-rescue reboot`, which only reboots, with all again.
func (f *fleet) contenders() []contender {
	return []contender{
		{fmt.Sprintf("os-rescue, %d instances", f.all()), func(ctx context.Context, b *bench) error {
			return f.rescue(ctx, b, f.hostNames(), f.each)
		}},
		{fmt.Sprintf("openstack server show, lock, reboot, unlock; %d", f.loop), f.shell},
		{fmt.Sprintf("os-rescue, %d instances", f.loop), func(ctx context.Context, b *bench) error {
			return f.rescue(ctx, b, []string{f.last()}, f.loop)
		}},
		{fmt.Sprintf("os-rescue reboot --scan-report, %d", f.all()), f.reboot},
	}
}

// rescue makes a run for each host, one after the other.
func (f *fleet) rescue(ctx context.Context, b *bench, hosts []string, each int) error {
	var took time.Duration
	var most float64
	calls := 0
	for _, host := range hosts {
		t, peak, n, err := f.rescueHost(ctx, host, each)
		if err != nil {
			return fmt.Errorf("%s: %w", host, err)
		}
		took, most, calls = took+t, max(most, peak), calls+n
	}
	count := each * len(hosts)
	b.Took(took / time.Duration(count))
	b.Value(perEach, took.Seconds())
	b.Value(peakName, most)
	b.Value(callsPerEach, float64(calls)/float64(count))
	return nil
}

// rescueHost makes a run for one host. A stand-in for libvirt holds its files; it has
// no part in the measurement.
func (f *fleet) rescueHost(ctx context.Context, host string, count int) (took time.Duration, peak float64, calls int, err error) {
	dir, err := os.MkdirTemp(f.dir, host+"-")
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, 0, 0, err
	}
	h, err := newStandIn(ctx, filepath.Join(dir, "instances"))
	if err != nil {
		return 0, 0, 0, err
	}
	defer h.Close()
	if err := f.accident(ctx, h, host); err != nil {
		return 0, 0, 0, err
	}
	e := standInEngine(h, f.binary, filepath.Join(dir, "state"))
	e.Settings.Host = host
	e.SignIn = func(ctx context.Context) (recover.Cloud, error) {
		client, err := nova.Open(ctx, nova.Options{UserAgent: fleetUserAgent})
		return starting{client, h}, err
	}
	before, err := f.calls()
	if err != nil {
		return 0, 0, 0, err
	}
	took, peak, err = rescueAll(ctx, e, recover.Options{Selection: recover.Selection{All: true}, Parallel: 2}, count)
	if err != nil {
		return 0, 0, 0, err
	}
	after, err := f.calls()
	return took, peak, after - before, err
}

// accident starts a host's instances in Nova on the stand-in, and deletes their files.
func (f *fleet) accident(ctx context.Context, h *standIn, host string) error {
	client, err := nova.Open(ctx, nova.Options{UserAgent: fleetUserAgent})
	if err != nil {
		return err
	}
	servers, err := client.Servers(ctx, recover.ServerFilter{Hosts: []string{host}})
	if err != nil {
		return err
	}
	for _, s := range servers {
		if err := h.add(ctx, s.UUID, s.Domain, s.ProjectID); err != nil {
			return err
		}
	}
	return h.deleteTree()
}

// starting starts the stand-in's domain where nova-compute would start libvirt's.
type starting struct {
	*nova.Client
	h *standIn
}

// HardReboot reboots in Nova, and then starts the stand-in's domain.
func (s starting) HardReboot(ctx context.Context, uuid string) error {
	if err := s.Client.HardReboot(ctx, uuid); err != nil {
		return err
	}
	return s.h.Start(ctx, uuid, false)
}

// shell does the same for a few instances with the OpenStack client.
func (f *fleet) shell(ctx context.Context, b *bench) error {
	calls, err := f.calls()
	if err != nil {
		return err
	}
	start := time.Now()
	script := `set -e
openstack server list --all-projects --host "$0" -f value -c ID > /dev/null
for id; do
	openstack server show "$id" -f value -c status > /dev/null
	openstack server lock --reason 'its files are being put back' "$id"
	openstack server reboot --hard --wait "$id" > /dev/null
	openstack server unlock "$id"
done`
	if err := command(ctx, "sh", append([]string{"-c", script, f.last()}, f.few...)...); err != nil {
		return err
	}
	took := time.Since(start)
	after, err := f.calls()
	b.Took(took / time.Duration(len(f.few)))
	b.Value(perEach, took.Seconds())
	b.Value(callsPerEach, float64(after-calls)/float64(len(f.few)))
	return err
}

// calls is the number of requests that Nova's API has answered so far, by its own log.
func (f *fleet) calls() (int, error) {
	log, err := os.ReadFile(f.bed.Log(openstack.NovaAPI))
	if err != nil {
		return 0, err
	}
	found := regexp.MustCompile(`"(GET|POST|PUT|DELETE) /\S* HTTP/1\.\d" status: \d`).FindAll(log, -1)
	if len(found) == 0 {
		return 0, errors.New("the log of Nova's API shows no request")
	}
	return len(found), nil
}
