package scan

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

// startHolder starts a process of that command name that holds a file.
func startHolder(t *testing.T, name, path string) int {
	t.Helper()
	h, err := recovertest.Hold(name, nil, []recover.File{{Path: path, Role: recover.RoleConsoleLog}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.End)
	return h.Cmd.Process.Pid
}

// startNamesake starts a process, by a command that others run, that only calls itself virtlogd.
func startNamesake(t *testing.T, by ...string) int {
	t.Helper()
	args := append(by[1:], "bash", "-c", "printf virtlogd > /proc/$$/comm; exec 3> /proc/self/comm; echo; read")
	cmd := exec.Command(by[0], args...)
	in, err := cmd.StdinPipe()
	recovertest.Must(t, err)
	out, err := cmd.StdoutPipe()
	recovertest.Must(t, err)
	recovertest.Must(t, cmd.Start())
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	_, err = bufio.NewReader(out).ReadString('\n')
	recovertest.Must(t, err)
	pid := cmd.Process.Pid
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); string(name) != "virtlogd\n" {
		t.Fatalf("%q, %v", name, err)
	}
	return pid
}

// virtlogdsOf looks in this process's own tree.
func virtlogdsOf(t *testing.T) *virtlogds {
	t.Helper()
	tree, err := procfs.OpenRoot("/")
	recovertest.Must(t, err)
	t.Cleanup(tree.Close)
	return &virtlogds{proc: procfs.Dir, tree: tree, instances: "/var/lib/nova/instances"}
}

func TestTheLogDaemonIsThatOfThePIDFileAndElseEveryOne(t *testing.T) {
	logs := t.TempDir()
	first := startHolder(t, procfs.Virtlogd, filepath.Join(logs, "first"))
	second := startHolder(t, procfs.Virtlogd, filepath.Join(logs, "second"))
	other := startHolder(t, "cat", filepath.Join(logs, "other"))
	foreign := startNamesake(t, "setpriv", "--reuid=65534")
	apart := startNamesake(t, "unshare", "--user", "--map-root-user") // anybody can make a user namespace
	elsewhere := startNamesake(t, "unshare", "--mount", "sh", "-c", `mount -t tmpfs none /run && exec "$0" "$@"`)
	sandboxed := startNamesake(t, "unshare", "--mount") // as a unit with PrivateTmp= does it
	for name, c := range map[string]struct {
		pidFile string
		found   []int
		missed  []int
		all     bool
	}{
		"the file names one":                           {fmt.Sprintf("%d\n", first), []int{first}, []int{second, other}, false},
		"no file":                                      {"", []int{first, second}, []int{other}, true},
		"the file names another program":               {fmt.Sprint(other), []int{first, second}, []int{other}, true},
		"the file names a process of another user":     {fmt.Sprint(foreign), []int{first, second}, []int{foreign}, true},
		"the file names one of another user namespace": {fmt.Sprint(apart), []int{first, second}, []int{apart}, true},
		"the file names one of a container":            {fmt.Sprint(elsewhere), []int{first, second, sandboxed}, []int{elsewhere}, true},
		"the file names one in a sandbox":              {fmt.Sprint(sandboxed), []int{sandboxed}, []int{first, elsewhere}, false},
		"the file names nobody":                        {"4194304000", []int{first, second}, []int{other}, true},
		"the file names every process":                 {"-1", []int{first, second}, []int{other}, true},
		"the file is empty, being written":             {"\n", []int{first, second}, []int{other}, true},
		"the file is not of a pid's making":            {"first", []int{first, second}, []int{other}, true},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if c.pidFile != "" {
				path := filepath.Join(root, pidFile)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(c.pidFile), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l, err := findVirtlogds(t.Context(), virtlogdsOf(t), filepath.Join(root, pidFile))
			recovertest.Must(t, err)
			has := func(pid int) bool {
				return slices.ContainsFunc(l.held, func(h procfs.HeldFile) bool { return h.PID == pid })
			}
			for _, pid := range c.found {
				if !has(pid) {
					t.Errorf("the virtlogd %d was not found", pid)
				}
			}
			for _, pid := range c.missed {
				if has(pid) {
					t.Errorf("process %d was looked at", pid)
				}
			}
			passed := fmt.Sprintf("process %d is called virtlogd and does not count: it sees another", elsewhere)
			if why := l.explain(); c.all != strings.Contains(why, passed) {
				t.Errorf("why: %q", why)
			}
			if l.all != c.all {
				t.Errorf("all processes looked at: %v, not %v", l.all, c.all)
			}
		})
	}
}

func TestALogThatTheDaemonOfThePIDFileDoesNotHoldIsLookedForEverywhere(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	known := startHolder(t, procfs.Virtlogd, at("known"))
	startHolder(t, procfs.Virtlogd, at("foreign"))
	lost := startHolder(t, procfs.Virtlogd, at("foreign lost"))
	recovertest.Must(t, os.Remove(at("foreign lost")))
	recovertest.Must(t, os.WriteFile(at("off"), nil, 0o600))
	recovertest.Must(t, os.MkdirAll(at("run"), 0o755))
	recovertest.Must(t, os.WriteFile(at(pidFile), []byte(fmt.Sprint(known)), 0o600))

	for name, c := range map[string]struct {
		path   string
		role   recover.Role
		active bool
		state  recover.FileState
		held   bool
		all    bool // every process was looked at
	}{
		"held by that daemon":             {path: "known", active: true, state: recover.FilePresent, held: true},
		"held by another":                 {path: "foreign", active: true, state: recover.FilePresent, held: true, all: true},
		"deleted, held by another":        {path: "foreign lost", active: true, state: recover.FileDeleted, held: true, all: true},
		"held by nobody, the guest is on": {path: "off", active: true, state: recover.FilePresent, all: true},
		"gone, the guest is on":           {path: "gone", active: true, state: recover.FileMissing, all: true},
		"gone, the guest is off":          {path: "gone", state: recover.FileMissing, all: true},
		"there, the guest is off":         {path: "off", state: recover.FilePresent},
		"a disk, which no daemon holds":   {path: "known", role: recover.RoleDisk, active: true, state: recover.FileUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			tree, err := procfs.OpenRoot("/")
			recovertest.Must(t, err)
			defer tree.Close()
			l := lookOf(t, tree)
			l.logs, err = findVirtlogds(t.Context(), virtlogdsOf(t), at(pidFile))
			recovertest.Must(t, err)
			i := recover.Instance{Files: []recover.File{{Path: at(c.path), Role: recover.RoleConsoleLog}}}
			if c.role != "" {
				i.Files[0].Role = c.role
			}
			if c.active {
				i.Process.PID = 1
			}
			recovertest.Must(t, l.files(t.Context(), &i, nil, tree))
			f := i.Files[0]
			if f.State != c.state || (len(f.Holders) > 0) != c.held || l.logs.all != c.all {
				t.Errorf("it is %s, held %v, all looked at %v; want %s, %v, %v", f.State, f.Holders, l.logs.all, c.state, c.held, c.all)
			}
			if c.path == "foreign lost" && (len(f.Holders) != 1 || f.Holders[0].PID != lost) {
				t.Errorf("its holders are %v, not process %d", f.Holders, lost)
			}
		})
	}
}
