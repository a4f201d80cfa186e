package qcow2

import (
	"runtime"
	"slices"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// forbidden are the system calls that qemu-img needs for no check and no comparison, and that
// whoever takes it over would want: to make, change or name files, to reach other processes, the
// network, the kernel's rarely used parts. qemu-img gets EPERM for them. What is named
// here is what a later QEMU can do without too: a list of what it may call would have to be
// made anew for each.
func forbidden() []string {
	return []string{
		// files
		"creat", "mkdir", "mkdirat", "mknod", "mknodat", "link", "linkat", "symlink", "symlinkat",
		"rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "truncate", "ftruncate", "fallocate",
		"chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchown", "fchownat",
		"setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr",
		"utime", "utimes", "utimensat", "futimesat", "copy_file_range",
		"openat2", "name_to_handle_at", "open_by_handle_at", "fanotify_init", "inotify_init", "inotify_init1",
		// the network
		"socket", "socketpair", "connect", "bind", "listen", "accept", "accept4",
		// other processes
		"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_open", "pidfd_getfd",
		"pidfd_send_signal", "add_key", "keyctl", "request_key", "msgget", "semget", "shmget", "mq_open",
		// the kernel
		"mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
		"setns", "unshare", "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot",
		"swapon", "swapoff", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register",
		"settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname", "setdomainname", "quotactl", "quotactl_fd",
		"acct", "syslog", "ioperm", "iopl", "vhangup", "personality", "modify_ldt", "lookup_dcookie", "vmsplice", "move_pages",
		"migrate_pages", "mbind", "set_mempolicy", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self",
		"seccomp",
	}
}

// restrict confines the calling thread, and with it whatever it starts, for good: no privilege
// is gained by starting a program, nothing is opened for writing, and nothing of forbidden is called.
func restrict() error {
	info, err := arch.GetInfo("")
	if err != nil {
		return err
	}
	names := slices.DeleteFunc(forbidden(), func(name string) bool {
		_, known := info.SyscallNames[name]
		return !known
	})
	write := func(name string, flags uint32) seccomp.NameWithConditions {
		return seccomp.NameWithConditions{Name: name, Conditions: seccomp.ArgumentConditions{
			{Argument: flags, Operation: seccomp.BitsSet, Value: unix.O_ACCMODE | unix.O_CREAT | unix.O_TRUNC},
		}}
	}
	writes := []seccomp.NameWithConditions{write("openat", 2)}
	if _, known := info.SyscallNames["open"]; known {
		writes = append(writes, write("open", 1))
	}
	refuse := seccomp.ActionErrno | seccomp.Action(unix.EPERM)
	return seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls: []seccomp.SyscallGroup{
			{Action: refuse, Names: names},
			{Action: refuse, NamesWithCondtions: writes},
		},
	}})
}

// onItsOwnThread calls do on a thread that is confined and ends with it, and returns its error:
// what do starts inherits the confinement. The thread lives as long as do, so that a child which
// asked for a signal when its parent's thread ends gets none before (PR_SET_PDEATHSIG).
func onItsOwnThread(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the runtime ends the thread of a goroutine that ends locked
		if err := restrict(); err != nil {
			done <- err
			return
		}
		done <- do()
	}()
	return <-done
}
