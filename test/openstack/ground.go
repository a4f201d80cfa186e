package openstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/ground"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

const (
	// markFile is on a bed's ground and has the bed's directory.
	markFile = "/run/os-rescue-bed"
	// hostName is the host name in the bed.
	hostName = "bed"
)

// The descriptors that process 1 is given.
const (
	readyFD = 3 // it writes how the ground came out, and closes it
	leashFD = 4 // it ends when this is closed before a byte came
)

// diskPaths are the directories that last from one up to the next, as on a
// machine's disk. The rest of the ground is new each time.
func diskPaths() []string {
	return []string{
		"/var/lib/nova", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt",
		"/var/lib/os-rescue", "/var/log/os-rescue",
	}
}

// machine is a bed's own: mount, PID, network, IPC and UTS namespaces on a ground.
// Process 1 in there is the calling program, run again; it reaps, and the machine
// lives as long as it does.
type machine struct{ dir string } // the bed's

// inside is true when this process is in the bed's namespaces.
func (m machine) inside() bool {
	text, err := os.ReadFile(markFile)
	return err == nil && string(text) == m.dir
}

func (m machine) initFile() string { return filepath.Join(m.dir, "init.pid") }

// initProcess returns process 1 of the bed, in the caller's numbers; ErrDown when
// the bed has no namespaces.
func (m machine) initProcess() (process, error) {
	p, err := readPID(m.initFile())
	if errors.Is(err, fs.ErrNotExist) || err == nil && !p.alive() {
		return process{}, ErrDown
	}
	return p, err
}

// leash holds process 1 of a bed: it ends with the calling process until it is let go.
type leash struct{ file *os.File }

func (l *leash) letGo() error {
	_, err := l.file.Write([]byte{1})
	return errors.Join(err, l.file.Close())
}

// create makes the bed's namespaces, on a new ground. The caller has the lock.
func (m machine) create() (*leash, error) {
	for _, dir := range append(diskPaths(), "/log") {
		if dir != "/log" {
			dir = "/disk" + dir
		}
		if err := os.MkdirAll(m.dir+dir, 0o755); err != nil {
			return nil, err
		}
	}
	// What the last ones' processes were says nothing here.
	if err := os.RemoveAll(filepath.Join(m.dir, "run")); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(m.dir, "log", "init.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	ready, theirReady, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	theirLeash, held, err := os.Pipe()
	if err != nil {
		theirReady.Close()
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe") //nolint:noctx // it outlives the caller
	cmd.Args[0] = "os-rescue-bed"
	cmd.Env = append(os.Environ(), stageVariable+"="+stageInit, DirVariable+"="+m.dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{theirReady, theirLeash}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Setsid:     true,
	}
	err = cmd.Start()
	theirReady.Close()
	theirLeash.Close()
	if err != nil {
		held.Close()
		return nil, fmt.Errorf("enter new namespaces: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its pid file says whose it was
		close(ended)
	}()
	seen, err := lookAt(cmd.Process.Pid)
	if err == nil {
		err = writePID(m.initFile(), seen.process)
	}
	if err == nil {
		err = readWord(ready)
	}
	if err != nil {
		held.Close()
		_ = cmd.Process.Kill()
		<-ended
		return nil, errors.Join(err, os.Remove(m.initFile()))
	}
	return &leash{held}, nil
}

// readyWord is what process 1 writes when all is well.
const readyWord = "ready"

func readWord(ready io.Reader) error {
	text, err := io.ReadAll(ready)
	switch {
	case err != nil:
		return err
	case string(text) == readyWord:
		return nil
	case len(text) == 0:
		return errors.New("process 1 of the namespaces ended at its start")
	default:
		return errors.New(string(text))
	}
}

// end ends every process in the bed's namespaces, and with them the namespaces and
// their mounts.
func (m machine) end() error {
	p, err := m.initProcess()
	if errors.Is(err, ErrDown) {
		return nil
	}
	if err != nil {
		return err
	}
	// Process 1 ends when the last of the others has ended (pid_namespaces(7)).
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("openstack: end process 1 of the bed: %w", err)
	}
	for end := time.Now().Add(patience.Of(time.Minute)); p.alive(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("openstack: process %d, process 1 of the bed, does not end, not even when killed", p.PID)
		}
	}
	return os.Remove(m.initFile())
}

// runInit is process 1 of the bed's namespaces.
func runInit() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("%s=%s is for the bed's own use", stageVariable, stageInit)
	}
	unix.CloseOnExec(readyFD)
	unix.CloseOnExec(leashFD)
	ready, held := os.NewFile(readyFD, "ready"), os.NewFile(leashFD, "leash")
	if err := prepareGround(context.Background(), os.Getenv(DirVariable)); err != nil {
		_, werr := ready.WriteString(err.Error())
		return errors.Join(err, werr)
	}
	// What the kernel keeps from any process 1, Go would end by (pid_namespaces(7)).
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	if _, err := ready.WriteString(readyWord); err != nil {
		return err
	}
	ready.Close()
	go func() {
		if n, _ := held.Read(make([]byte, 1)); n == 0 {
			os.Exit(1) // the one who was to say that all went well is gone
		}
	}()
	for range children {
		// One signal may stand for many children.
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if err != nil && !errors.Is(err, syscall.EINTR) || pid == 0 {
				break
			}
		}
	}
	return nil
}

// prepareGround makes the new namespaces a machine.
func prepareGround(ctx context.Context, dir string) error {
	o, err := ground.Here(ctx)
	if err != nil {
		return err
	}
	o.Dirs = append(shown(o.Dirs), dir)
	o.Groups, o.KVM = []string{"kvm"}, "kvm"
	for _, path := range diskPaths() {
		o.Binds = append(o.Binds, ground.Bind{Source: filepath.Join(dir, "disk", path), Target: path})
	}
	if err := ground.Pivot(ctx, o); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("openstack: the loopback interface: %w", err)
	}
	if err := nameHost(); err != nil {
		return err
	}
	// What the machine's own libvirtd knows is not for this one.
	for _, pattern := range []string{"/etc/libvirt/qemu/*.xml", "/etc/libvirt/qemu/autostart", "/etc/libvirt/qemu/networks/autostart"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range found {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	// Where os-rescue looks for it.
	if err := os.MkdirAll("/etc/nova", 0o755); err != nil {
		return err
	}
	for _, path := range []string{novaConf(dir), computeConf(dir)} {
		link := filepath.Join("/etc/nova", filepath.Base(path))
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Symlink(path, link); err != nil {
			return err
		}
	}
	return os.WriteFile(markFile, []byte(dir), 0o644)
}

// shown returns those of the machine's directories that don't hide what the bed has
// of its own: the caller may stand in one of them.
func shown(dirs []string) []string {
	own := append(diskPaths(), "/etc", "/run", "/dev", "/proc", "/sys")
	return slices.DeleteFunc(slices.Clone(dirs), func(dir string) bool {
		return slices.ContainsFunc(own, func(path string) bool {
			return strings.HasPrefix(path+"/", dir+"/") || strings.HasPrefix(dir+"/", path+"/")
		})
	})
}

// nameHost names the host, and gives the name an address.
func nameHost() error {
	if err := unix.Sethostname([]byte(hostName)); err != nil {
		return fmt.Errorf("openstack: the host name: %w", err)
	}
	const hosts = "/etc/hosts"
	text := "127.0.0.1 localhost\n127.0.0.1 " + hostName + "\n"
	return os.WriteFile(hosts, []byte(text), 0o644)
}

// loopbackUp makes 127.0.0.1 work (netdevice(7)).
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}
