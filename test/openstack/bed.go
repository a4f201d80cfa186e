package openstack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/lab/patience"
)

const (
	// DefaultDir is where a bed's state is when nothing else is said.
	DefaultDir = "/var/lib/os-rescue-bed"
	// DirVariable is the environment variable that says where it is.
	DirVariable = "BED_DIR"
)

// The limits of waiting, which package patience stretches.
const (
	awaitLimit = 4 * time.Minute // for any one thing
	downLimit  = 2 * time.Minute // for all services together to end
)

// ErrDown: the bed, or a part of it that is needed, is not up.
var ErrDown = errors.New("the OpenStack bed is not up")

// Bed is an OpenStack with a machine of its own.
type Bed struct {
	dir      string
	machine  machine
	cache    string
	progress io.Writer
	lasting  lasting
	services []*service
	guest    string // the path of the guest's image, once it is built
	leash    *leash // of a bed that is to end with this process
	telling  sync.Mutex

	signIn sync.Mutex
	admin  *Client // once it was asked for
}

// Open returns the bed that the options name, up or not; it starts nothing.
func Open(options Options) *Bed {
	dir := options.dir()
	b := &Bed{dir: dir, machine: machine{dir}, cache: options.Cache, progress: options.Progress}
	if b.cache == "" {
		b.cache = filepath.Join(b.dir, "guest")
	}
	if b.progress == nil {
		b.progress = io.Discard
	}
	// Whoever goes on to bring the bed up is told that the file can't be read.
	b.lasting, _ = readLasting(b.dir)
	b.lasting = b.lasting.with(options)
	b.services = newServices(b.dir, b.lasting.FakeComputes)
	return b
}

// Up brings a bed up, and returns when an instance can be booted. Of one that is
// up it starts what is missing. It needs root. The bed lives on when the caller
// ends, until Down. When it can't be brought up, nothing is left of what was not up
// before. Outside of the bed the caller has called Begin first.
func Up(ctx context.Context, options Options) (*Bed, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("openstack: the bed needs root")
	}
	b := Open(options)
	fresh, err := b.prepare(options)
	if err != nil {
		return nil, err
	}
	if b.machine.inside() {
		return b, b.up(ctx)
	}
	if _, err = call(ctx, b, callUp); err == nil && fresh != nil && !options.Bound {
		err = fresh.letGo()
	}
	if err != nil && fresh != nil {
		err = errors.Join(err, b.Down(context.WithoutCancel(ctx)))
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// prepare writes down what the bed is to be like, and makes its namespaces if it has
// none; it returns the leash of new ones.
func (b *Bed) prepare(options Options) (*leash, error) {
	unlock, err := b.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	old, err := readLasting(b.dir)
	if err != nil {
		return nil, err
	}
	b.lasting = old.with(options)
	if err := b.lasting.write(b.dir); err != nil {
		return nil, err
	}
	if b.machine.inside() {
		return nil, nil
	}
	if _, err := b.machine.initProcess(); !errors.Is(err, ErrDown) {
		return nil, err
	}
	if b.leash, err = b.machine.create(); err != nil {
		return nil, fmt.Errorf("openstack: make the bed's machine: %w", err)
	}
	return b.leash, nil
}

// up is Up inside.
func (b *Bed) up(ctx context.Context) error {
	if err := installed(); err != nil {
		return err
	}
	unlock, err := b.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := configure(b); err != nil {
		return fmt.Errorf("openstack: configure the bed: %w", err)
	}
	began := time.Now()
	return runSteps(ctx, stepsOf(b), func(name string) { b.tell(began, name) })
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
	// The services' users get to their files through it.
	if err := os.Chmod(b.dir, 0o755); err != nil {
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

// service returns the service of that name, which is one of the constants or of a
// fake compute that the bed has.
func (b *Bed) service(name string) *service {
	i := slices.IndexFunc(b.services, func(s *service) bool { return s.name == name })
	return b.services[i]
}

// known returns an error that names the services unless there is one of that name.
func (b *Bed) known(name string) error {
	if names := b.Services(); !slices.Contains(names, name) {
		return fmt.Errorf("openstack: no service %q: there are %s", name, strings.Join(names, ", "))
	}
	return nil
}

// Status says which services are up, by name.
func (b *Bed) Status(ctx context.Context) (map[string]bool, error) {
	status := map[string]bool{}
	if !b.machine.inside() {
		text, err := call(ctx, b, callStatus)
		switch {
		case err == nil:
			return status, json.Unmarshal([]byte(text), &status)
		case !errors.Is(err, ErrDown):
			return nil, err
		}
		for _, name := range b.Services() {
			status[name] = false
		}
		return status, nil
	}
	for _, s := range b.services {
		_, alive, err := s.process()
		if err != nil {
			return nil, err
		}
		status[s.name] = alive
	}
	return status, nil
}

// IsUp is true when the bed has its machine, whichever services are up on it.
func (b *Bed) IsUp() bool {
	_, err := b.machine.initProcess()
	return b.machine.inside() || err == nil
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

// novaNames are the names of Nova's services.
func (b *Bed) novaNames() []string {
	return append(fakeNames(b.lasting.FakeComputes), NovaCompute, NovaScheduler, NovaConductor, NovaAPI)
}

// Stop ends one service and what it started, as its service manager would. The
// guests run on.
func (b *Bed) Stop(ctx context.Context, name string) error {
	if err := b.known(name); err != nil {
		return err
	}
	if !b.machine.inside() {
		_, err := call(ctx, b, callStop, name)
		return err
	}
	return b.service(name).stop()
}

// Start starts one service, and returns when it serves; for nova-compute, the
// conductor and the scheduler that is when Nova sees that they are up.
func (b *Bed) Start(ctx context.Context, name string) error {
	if err := b.known(name); err != nil {
		return err
	}
	if !b.machine.inside() {
		_, err := call(ctx, b, callStart, name)
		return err
	}
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

// Exec runs a command inside the bed and returns its exit code, 128 + N when signal
// N ended it. The command has the caller's environment and terminal, and the working
// directory if there is such a one inside. The caller's source tree and Go are shown
// inside. Signals to the caller are passed on until the command ends; when the context
// is done, it is sent SIGTERM. ErrDown when the bed is not up.
func (b *Bed) Exec(ctx context.Context, command Command) (int, error) {
	return b.machine.exec(ctx, command)
}

// Down ends every instance's domain, every service and every other process in the
// bed. What the bed knows stays: the next Up finds its instances, stopped. It works
// from outside only.
func (b *Bed) Down(ctx context.Context) error {
	unlock, err := b.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return b.down(ctx)
}

func (b *Bed) down(ctx context.Context) error {
	if b.machine.inside() {
		return errors.New("openstack: the bed can't be taken down from inside")
	}
	// What does not end in order ends with the namespaces.
	inOrder, cancel := context.WithTimeout(ctx, patience.Of(downLimit))
	defer cancel()
	_, err := call(inOrder, b, callDown)
	if errors.Is(err, ErrDown) {
		err = nil
	}
	return errors.Join(err, b.machine.end())
}

// stopAll is Down inside.
func (b *Bed) stopAll(ctx context.Context) error {
	// Nova first: it would act on what happens to its domains.
	groups := [][]string{
		b.novaNames(),
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
	return errors.Join(errs...)
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
	return os.RemoveAll(b.dir)
}

// installed returns an error that says what to do when the bed can't be here.
func installed() error {
	for _, program := range []string{
		"/usr/sbin/mariadbd", "/usr/bin/epmd", "/usr/bin/keystone-manage", "/usr/bin/nova-compute", "/usr/bin/neutron-server",
		"/usr/bin/uwsgi", "/usr/sbin/libvirtd",
	} {
		if _, err := os.Stat(program); err != nil {
			return fmt.Errorf("openstack: %w: make openstack-packages installs what the bed needs", err)
		}
	}
	return nil
}
