package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/ground"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// The paths of the lab: the defaults of Nova and libvirt on Debian.
const (
	NovaDir      = "/var/lib/nova"
	InstancesDir = NovaDir + "/instances"
	BaseDir      = InstancesDir + "/_base"
)

// T is what the lab needs of a *testing.T or *testing.B.
type T interface {
	Helper()
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
	Failed() bool
	Context() context.Context
}

// Options say what a lab is like. The zero value is a compute node as Debian
// and Nova make it.
type Options struct {
	FileSystem FileSystem // what /var/lib/nova is on; Ext4 when empty
	Size       int64      // of that file system in bytes; 16 GiB when 0, sparse
	// StdioHandler is qemu.conf's stdio_handler: "logd" (the default: virtlogd
	// holds the console logs) or "file" (QEMU holds them).
	StdioHandler string
	// QemuConf is added to qemu.conf.
	QemuConf string
	// BuildFlags are given to `go build` of os-rescue: -race, -tags=...
	BuildFlags []string
}

// Lab is a compute node: a running libvirtd and virtlogd and an instances tree.
type Lab struct {
	options   Options
	image     string // the guest's disk image
	root      string // of the Go module
	instances []*Instance
	libvirtd  *daemon
	virtlogd  *daemon
	enter     []string // the command that runs os-rescue elsewhere than libvirt; see Contain
}

// active guards the paths of the namespace, of which there is one set.
var active sync.Mutex

// mountsOfLab are the directories that each lab finds empty.
var mountsOfLab = []string{
	"/run/libvirt", "/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt",
	"/var/lib/os-rescue", "/etc/os-rescue", "/etc/nova", "/var/log/os-rescue",
}

// New starts a lab, and ends it with the test: every process in the namespaces
// but the test's own is killed then. There can be one lab at a time: a test
// that takes another fails at once.
func New(t T, options Options) *Lab {
	t.Helper()
	if err := insideLab(); err != nil {
		t.Fatalf("lab: %v", err)
	}
	if !active.TryLock() {
		t.Fatalf("lab: another lab is running in this process: only one at a time has the default paths")
	}
	l := &Lab{options: options}
	t.Cleanup(func() {
		defer active.Unlock()
		if t.Failed() {
			t.Logf("%s", l.logTail())
		}
		if err := l.stop(); err != nil {
			t.Logf("lab: the next one may not start: %v", err)
		}
	})
	if err := l.start(t.Context()); err != nil {
		t.Fatalf("%v", err)
	}
	return l
}

func (l *Lab) start(ctx context.Context) error {
	var err error
	if l.root, err = moduleRoot(); err != nil {
		return err
	}
	cache := os.Getenv(cacheVariable)
	if cache == "" {
		cache = filepath.Join(l.root, "test", ".cache")
	}
	if l.image, err = GuestImage(ctx, cache); err != nil {
		return err
	}
	for _, dir := range mountsOfLab {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
			return err
		}
	}
	// libvirt's cache of what QEMU can do, in /var/cache, stays for the next lab.
	kind, size := l.options.FileSystem, l.options.Size
	if kind == "" {
		kind = Ext4
	}
	if size == 0 {
		size = 16 << 30
	}
	if err := (ground.Image{Dir: diskDir, Kind: kind, Size: size}).Mount(ctx, NovaDir); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := l.makeTree(); err != nil {
		return err
	}
	if err := l.configure(); err != nil {
		return err
	}
	if err := l.startVirtlogd(ctx); err != nil {
		return err
	}
	return l.startLibvirtd(ctx)
}

// makeTree makes what Nova's packages and nova-compute make.
func (l *Lab) makeTree() error {
	if err := os.Remove(filepath.Join(NovaDir, "lost+found")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, dir := range []string{NovaDir, InstancesDir, BaseDir, InstancesDir + "/locks"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := chown(dir, "nova", "nova"); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) configure() error {
	stdio := l.options.StdioHandler
	if stdio == "" {
		stdio = "logd"
	}
	files := map[string]string{
		// No polkit without D-Bus. The log is for the lab's own failures.
		"/etc/libvirt/libvirtd.conf": `auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
`,
		"/etc/libvirt/virtlogd.conf": `log_outputs = "2:file:/var/log/libvirt/virtlogd.log"
`,
		"/etc/libvirt/qemu.conf": fmt.Sprintf(`user = "libvirt-qemu"
group = "kvm"
dynamic_ownership = 1
remember_owner = 1
security_driver = "none"
cgroup_controllers = [ ]
stdio_handler = %q
%s
`, stdio, l.options.QemuConf),
	}
	for path, body := range files {
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/var/lib/libvirt/qemu", "/var/log/libvirt/qemu", labDir + "/sockets"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) startLibvirtd(ctx context.Context) (err error) {
	l.libvirtd, err = startDaemon(ctx, "/run/libvirt/libvirt-sock", "libvirtd")
	return err
}

func (l *Lab) startVirtlogd(ctx context.Context) (err error) {
	l.virtlogd, err = startDaemon(ctx, "/run/libvirt/virtlogd-sock", "virtlogd")
	return err
}

// stop ends everything that runs in the namespaces and unmounts the lab.
func (l *Lab) stop() error {
	if err := insideLab(); err != nil {
		return err // never kill(-1) on the machine itself
	}
	for _, instance := range l.instances {
		instance.console.close()
	}
	// All but process 1 and the caller, kill(2).
	if err := unix.Kill(-1, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	var errs []error
	dirs := append([]string{NovaDir}, mountsOfLab...)
	for _, dir := range dirs {
		errs = append(errs, patience.Retry(func() error { return unmountAll(dir) }))
	}
	return errors.Join(errs...)
}

// StopLibvirtd ends libvirtd as its service would; the guests run on.
func (l *Lab) StopLibvirtd(t T) {
	t.Helper()
	if err := l.libvirtd.stop(syscall.SIGTERM); err != nil {
		t.Fatalf("%v", err)
	}
}

// KillLibvirtd ends libvirtd as a crash would; the guests run on.
func (l *Lab) KillLibvirtd(t T) {
	t.Helper()
	if err := l.libvirtd.stop(syscall.SIGKILL); err != nil {
		t.Fatalf("%v", err)
	}
}

// StartLibvirtd starts libvirtd again, and returns when it answers.
func (l *Lab) StartLibvirtd(t T) {
	t.Helper()
	if err := l.startLibvirtd(t.Context()); err != nil {
		t.Fatalf("%v", err)
	}
}

// RestartLibvirtd stops and starts libvirtd.
func (l *Lab) RestartLibvirtd(t T) {
	t.Helper()
	l.StopLibvirtd(t)
	l.StartLibvirtd(t)
}

// LibvirtdPID returns the pid of libvirtd.
func (l *Lab) LibvirtdPID() int { return l.libvirtd.pid() }

// StartDaemons starts those of libvirtd and virtlogd again that have ended, as their
// services do, and returns when they answer.
func (l *Lab) StartDaemons(t T) {
	t.Helper()
	if !l.virtlogd.answers(t.Context()) {
		if err := l.startVirtlogd(t.Context()); err != nil {
			t.Fatalf("%v", err)
		}
	}
	if !l.libvirtd.answers(t.Context()) {
		l.StartLibvirtd(t)
	}
}

// VirtlogdPID returns the pid of virtlogd.
func (l *Lab) VirtlogdPID() int { return l.virtlogd.pid() }

// LoggedFiles returns what virtlogd has open under Nova's directory, by path
// without " (deleted)".
func (l *Lab) LoggedFiles(t T) map[string]OpenFile {
	t.Helper()
	return openUnder(t, l.VirtlogdPID(), NovaDir)
}

// Virsh runs virsh, fails the test when it fails, and returns its output
// without the space around it.
func (l *Lab) Virsh(t T, args ...string) string {
	t.Helper()
	out, err := virsh(t.Context(), args...)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return out
}

func virsh(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "virsh", append([]string{"--quiet", "--connect", "qemu:///system"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("lab: virsh %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// DeleteTree removes everything under /var/lib/nova/instances, as the accident does.
func (l *Lab) DeleteTree(t T) {
	t.Helper()
	if err := ground.EmptyDir(InstancesDir); err != nil {
		t.Fatalf("lab: delete the instances: %v", err)
	}
}

// Purge removes everything under /var/lib/nova, as a purge of Nova's packages does.
func (l *Lab) Purge(t T) {
	t.Helper()
	if err := ground.EmptyDir(NovaDir); err != nil {
		t.Fatalf("lab: purge Nova: %v", err)
	}
}

// logTail is what a stranger needs to see of a test that failed.
func (l *Lab) logTail() string {
	var out strings.Builder
	for _, name := range []string{"libvirtd.log", "virtlogd.log"} {
		fmt.Fprintf(&out, "--- %s\n%s", name, tail("/var/log/libvirt/"+name, 15))
	}
	for _, instance := range l.instances {
		fmt.Fprintf(&out, "--- %s: QEMU's log\n%s", instance.Name, tail("/var/log/libvirt/qemu/"+instance.Name+".log", 5))
		fmt.Fprintf(&out, "--- %s: console\n%s", instance.Name, instance.console.tail(15))
	}
	return out.String()
}

func tail(path string, lines int) string {
	body, err := os.ReadFile(path)
	if err != nil {
		return err.Error() + "\n"
	}
	all := strings.SplitAfter(string(body), "\n")
	return strings.Join(all[max(0, len(all)-lines-1):], "")
}

// moduleRoot returns the directory of the go.mod above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == "/" {
			return "", errors.New("lab: no go.mod above the working directory: run it inside the source tree")
		}
	}
}

func chown(path, user, group string) error {
	uid, err := ground.UserID(user)
	if err != nil {
		return err
	}
	gid, err := ground.GroupID(group)
	if err != nil {
		return err
	}
	return os.Chown(path, uid, gid)
}
