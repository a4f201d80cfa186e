package openstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// DefaultDir is where a bed's state is when nothing else is said.
	DefaultDir = "/var/lib/os-rescue-bed"
	// DirVariable is the environment variable that says where it is.
	DirVariable = "BED_DIR"
	// InstancesPath is Nova's instances_path.
	InstancesPath = "/var/lib/nova/instances"
)

// patience is how long the bed waits for any one thing, on a machine that may be
// busy with other things.
const patience = 4 * time.Minute

// ErrDown: the bed, or a part of it that is needed, is not up.
var ErrDown = errors.New("the OpenStack bed is not up")

// Options say where a bed is and how it is brought up.
type Options struct {
	Dir      string    // of its state; $BED_DIR or DefaultDir when empty
	Cache    string    // for the guest's image; a directory below Dir when empty
	Progress io.Writer // is told what is done; nobody when nil
	// FakeComputes is how many compute services there are beside the real one,
	// each a host of its own with Nova's fake driver: FakeHost(1) and so on.
	FakeComputes int
}

// Bed is an OpenStack on this machine.
type Bed struct {
	dir      string
	cache    string
	progress io.Writer
	services []*service
	fakes    int    // fake compute services
	guest    string // the path of the guest's image, once it is built
	telling  sync.Mutex

	signIn sync.Mutex
	admin  *Client // once it was asked for
}

// Open returns the bed that the options name, up or not; it starts nothing.
func Open(options Options) *Bed {
	dir := options.Dir
	if dir == "" {
		dir = os.Getenv(DirVariable)
	}
	if dir == "" {
		dir = DefaultDir
	}
	b := &Bed{dir: dir, cache: options.Cache, progress: options.Progress,
		services: newServices(dir, options.FakeComputes), fakes: options.FakeComputes}
	if b.cache == "" {
		b.cache = filepath.Join(dir, "guest")
	}
	if b.progress == nil {
		b.progress = io.Discard
	}
	return b
}

// Up brings a bed up, and returns when an instance can be booted. Of one that is
// up it starts what is missing. It needs root; the services live on when the
// caller ends, until Down.
func Up(ctx context.Context, options Options) (*Bed, error) {
	if err := installed(); err != nil {
		return nil, err
	}
	b := Open(options)
	unlock, err := b.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := b.claim(); err != nil {
		return nil, err
	}
	if err := b.configure(); err != nil {
		return nil, fmt.Errorf("openstack: configure the bed: %w", err)
	}
	began := time.Now()
	if err := runSteps(ctx, b.steps(), func(name string) { b.tell(began, name) }); err != nil {
		return nil, err
	}
	return b, nil
}

// tell says what is done.
func (b *Bed) tell(began time.Time, what string) {
	b.telling.Lock()
	defer b.telling.Unlock()
	_, _ = fmt.Fprintf(b.progress, "%6.1fs  %s\n", time.Since(began).Seconds(), what)
}

// lock keeps a second Up, Down or Purge waiting until unlock.
func (b *Bed) lock() (unlock func(), err error) {
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return nil, fmt.Errorf("openstack: the bed's directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(b.dir, "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("openstack: the bed's lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("openstack: the bed's lock: %w", err)
	}
	return func() { f.Close() }, nil
}

// claimed is there when the instances are the bed's.
func (b *Bed) claimed() string { return filepath.Join(b.dir, "instances-are-ours") }

// claim takes the instances' directory for a new bed. One that holds anything is
// another Nova's.
func (b *Bed) claim() error {
	if _, err := os.Stat(b.claimed()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(InstancesPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("openstack: %s is not empty (%s, ...) and no bed in %s knows of it: take the instances away first, or point %s at their bed",
			InstancesPath, entries[0].Name(), b.dir, DirVariable)
	}
	return os.WriteFile(b.claimed(), nil, 0o644)
}

// service returns the service of that name, which is one of the constants.
func (b *Bed) service(name string) *service {
	i := slices.IndexFunc(b.services, func(s *service) bool { return s.name == name })
	return b.services[i]
}

// Status says which services are up, by name.
func (b *Bed) Status() (map[string]bool, error) {
	status := map[string]bool{}
	for _, s := range b.services {
		_, alive, err := s.process()
		if err != nil {
			return nil, err
		}
		status[s.name] = alive
	}
	return status, nil
}

// Running is true when every service is up.
func (b *Bed) Running() bool {
	status, err := b.Status()
	if err != nil {
		return false
	}
	for _, up := range status {
		if !up {
			return false
		}
	}
	return true
}

// Services returns the names of the services in the order in which they start.
func (b *Bed) Services() []string {
	var names []string
	for _, s := range b.services {
		names = append(names, s.name)
	}
	return names
}

// Dir is the directory of the bed's state.
func (b *Bed) Dir() string { return b.dir }

// Log is the path of a service's log.
func (b *Bed) Log(service string) string { return b.service(service).logFile() }

// NovaConf is the path of the bed's nova.conf.
func (b *Bed) NovaConf() string { return filepath.Join(b.dir, "etc", "nova.conf") }

// PID is the pid of a service; ErrDown when it is not up.
func (b *Bed) PID(name string) (int, error) {
	p, alive, err := b.service(name).process()
	if err == nil && !alive {
		err = fmt.Errorf("openstack: %s: %w", name, ErrDown)
	}
	return p.PID, err
}

// Stop ends one service and what it started, as its service manager would. The
// guests run on.
func (b *Bed) Stop(_ context.Context, name string) error { return b.service(name).stop() }

// Start starts one service, and returns when it serves; for nova-compute, the
// conductor and the scheduler that is when Nova sees that they are up.
func (b *Bed) Start(ctx context.Context, name string) error {
	if err := b.service(name).start(ctx); err != nil {
		return err
	}
	switch name {
	case NovaCompute, NovaConductor, NovaScheduler:
		admin, err := b.Admin(ctx)
		if err != nil {
			return err
		}
		return until(ctx, askEvery, func(ctx context.Context) error { return admin.reports(ctx, name) })
	}
	return nil
}

// Down ends every instance's domain and every service. What the bed knows stays:
// the next Up finds its instances, stopped.
func (b *Bed) Down(ctx context.Context) error {
	unlock, err := b.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return b.down(ctx)
}

func (b *Bed) down(ctx context.Context) error {
	// Nova first: it would act on what happens to its domains.
	groups := [][]string{
		append(b.fakeNames(), NovaCompute, NovaScheduler, NovaConductor, NovaAPI),
		nil, // the domains
		{Libvirtd, Neutron, Glance, Placement, Keystone},
		{Virtlogd, RabbitMQ, MariaDB},
		{Epmd},
	}
	began := time.Now()
	var errs []error
	for _, names := range groups {
		if names == nil {
			errs = append(errs, b.EndDomains(ctx))
		}
		results := make([]error, len(names))
		var wait sync.WaitGroup
		for i, name := range names {
			wait.Go(func() {
				results[i] = b.service(name).stop()
				b.tell(began, name)
			})
		}
		wait.Wait()
		errs = append(errs, results...)
	}
	return errors.Join(append(errs, b.unshareKVM())...)
}

// Purge is Down, and removes everything that the bed knows, its instances' files
// among it.
func (b *Bed) Purge(ctx context.Context) error {
	unlock, err := b.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := b.down(ctx); err != nil {
		return err
	}
	if _, err := os.Stat(b.claimed()); err == nil {
		if err := emptyDir(InstancesPath); err != nil {
			return err
		}
	}
	return os.RemoveAll(b.dir)
}

// EndDomains destroys and undefines the domains of Nova's that the bed's libvirtd
// has, if that is up.
func (b *Bed) EndDomains(ctx context.Context) error {
	_, alive, err := b.service(Libvirtd).process()
	if err != nil || !alive {
		return err
	}
	list, err := virsh(ctx, "list", "--all", "--name")
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range strings.Fields(list) {
		if !strings.HasPrefix(name, "instance-") {
			continue
		}
		_, _ = virsh(ctx, "destroy", name) // it may be off
		if _, err := virsh(ctx, "undefine", name, "--nvram"); err != nil {
			// A transient one is gone with its QEMU.
			if left, lerr := virsh(ctx, "list", "--all", "--name"); lerr != nil || slices.Contains(strings.Fields(left), name) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func virsh(ctx context.Context, args ...string) (string, error) {
	return do(ctx, "", []string{"LC_ALL=C"}, append([]string{"/usr/bin/virsh", "--quiet", "--connect", "qemu:///system"}, args...)...)
}

// DeleteTree removes everything under Nova's instances_path, as the accident does.
func (b *Bed) DeleteTree() error { return emptyDir(InstancesPath) }

func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// installed returns an error that says what to do when the bed can't be here.
func installed() error {
	if os.Geteuid() != 0 {
		return errors.New("openstack: the bed needs root")
	}
	for _, program := range []string{"/usr/sbin/mariadbd", "/usr/bin/epmd", "/usr/bin/keystone-manage", "/usr/bin/nova-compute", "/usr/bin/neutron-server", "/usr/bin/uwsgi", "/usr/sbin/libvirtd"} {
		if _, err := os.Stat(program); err != nil {
			return fmt.Errorf("openstack: %w: make openstack-packages installs what the bed needs", err)
		}
	}
	return nil
}
