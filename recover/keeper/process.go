package keeper

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/printable"
)

// maxLog is the size in bytes above which keeper.log is begun anew.
const maxLog = 256 << 10

// becomeKeeper turns this process into one that stays, and opens its log. A step
// that fails is logged and skipped: a keeper that the OOM killer can kill is better
// than none.
func becomeKeeper(dir *os.File) (zerolog.Logger, error) {
	file, err := openIn(dir, logName, unix.O_WRONLY|unix.O_APPEND)
	if err != nil {
		return zerolog.Nop(), err
	}
	log := zerolog.New(printable.JSON(&boundedLog{file: file})).With().Timestamp().Logger()
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGPIPE)
	attempt := func(step string, err error) {
		if err != nil {
			log.Error().Err(err).Msg("can't " + step)
		}
	}
	attempt("close inherited descriptors", closeInherited())
	attempt("redirect the standard streams", redirect(file))
	attempt("leave the working directory", os.Chdir("/"))
	unix.Umask(0o077)
	if sid, _ := unix.Getsid(0); sid != os.Getpid() {
		_, err := unix.Setsid()
		attempt("begin a session", err)
	}
	// oom_score_adj -1000 is "never" (proc_pid_oom_score_adj(5)).
	attempt("hide from the OOM killer", hide())
	attempt("raise the limit of open files", RaiseFiles())
	cgroups, err := os.ReadFile("/proc/self/cgroup")
	attempt("read its cgroup", err)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	attempt("read the mounts", err)
	for _, procs := range rootCgroups(cgroups, mounts) {
		attempt("leave its cgroup", os.WriteFile(procs, []byte(strconv.Itoa(os.Getpid())), 0))
	}
	runtime.GOMAXPROCS(min(2, runtime.NumCPU()))
	debug.SetGCPercent(25)
	return log, nil
}

// hide makes the OOM killer pass this process over. A guard's keeper, which may not, is the last that
// it takes, as the guard is.
func hide() error {
	const score, last = "/proc/self/oom_score_adj", -999
	err := os.WriteFile(score, []byte("-1000"), 0)
	if err == nil {
		return nil
	}
	now, rerr := os.ReadFile(score)
	if adj, nerr := strconv.Atoi(strings.TrimSpace(string(now))); rerr == nil && nerr == nil && adj <= last {
		return nil
	}
	return err
}

// closeInherited closes inherited descriptors, for example a pipe of cron's whose
// reader waits for its end. Go opens everything close-on-exec, so a descriptor
// without that flag was inherited.
func closeInherited() error {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, n := range names {
		fd, err := strconv.Atoi(n.Name())
		if err != nil || fd <= 2 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	return nil
}

// redirect points stdin and stdout to /dev/null, and stderr to the log, because the
// Go runtime reports a crash there.
func redirect(log *os.File) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	return errors.Join(unix.Dup3(int(null.Fd()), 0, 0), unix.Dup3(int(null.Fd()), 1, 0), unix.Dup3(int(log.Fd()), 2, 0))
}

// RaiseFiles raises RLIMIT_NOFILE as far as possible: to a million as root, to the
// hard limit without CAP_SYS_RESOURCE.
func RaiseFiles() error {
	const many = 1 << 20 // fs.nr_open's default: no process may have more
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: many, Max: many}) == nil {
		return nil
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
}

// rootCgroups returns the files to which we write our pid to leave the unit that
// started us. KillMode=control-group, systemd's default, kills every process in a
// unit's cgroup when the unit stops (systemd.kill(5)), and a login session is such a
// unit. systemd tracks processes in the cgroup v2 hierarchy, or on older hosts in
// the v1 hierarchy called "systemd"; the root of either takes any process
// (cgroups(7), "no internal processes"). The arguments are the texts of
// /proc/self/cgroup and /proc/self/mountinfo. It leaves out a hierarchy in whose root
// this process is already.
func rootCgroups(cgroups, mounts []byte) []string {
	var files []string
	s := bufio.NewScanner(bytes.NewReader(cgroups))
	for s.Scan() {
		// hierarchy-ID:controllers:path
		fields := strings.SplitN(s.Text(), ":", 3)
		if len(fields) != 3 || fields[2] == "/" {
			continue
		}
		kind, option := "cgroup2", ""
		if fields[0] != "0" {
			kind, option = "cgroup", "name=systemd"
			if fields[1] != option {
				continue
			}
		}
		if at := mountOf(mounts, kind, option); at != "" {
			files = append(files, filepath.Join(at, "cgroup.procs"))
		}
	}
	return files
}

// mountOf finds the mount point of a file system's root (proc_pid_mountinfo(5)).
func mountOf(mounts []byte, kind, option string) string {
	s := bufio.NewScanner(bytes.NewReader(mounts))
	for s.Scan() {
		left, right, _ := strings.Cut(s.Text(), " - ")
		mount, fs := strings.Fields(left), strings.Fields(right)
		if len(mount) >= 6 && len(fs) >= 3 && mount[3] == "/" && fs[0] == kind &&
			(option == "" || slices.Contains(strings.Split(fs[2], ","), option)) {
			return mount[4]
		}
	}
	return ""
}

// boundedLog truncates its file when it has grown too large.
type boundedLog struct{ file *os.File }

var _ io.Writer = (*boundedLog)(nil)

func (l *boundedLog) Write(line []byte) (int, error) {
	if info, err := l.file.Stat(); err == nil && info.Size() > maxLog {
		if err := l.file.Truncate(0); err != nil {
			return 0, fmt.Errorf("shorten %s: %w", l.file.Name(), err)
		}
	}
	return l.file.Write(line)
}
