package recover

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// startHolder starts a process of that command name that holds a file.
func startHolder(t *testing.T, name, path string) int {
	t.Helper()
	h, err := hold(name, nil, []File{{Path: path, Role: RoleConsoleLog}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.end)
	return h.cmd.Process.Pid
}

func TestTheLogDaemonIsThatOfThePIDFileAndElseEveryOne(t *testing.T) {
	logs := t.TempDir()
	first := startHolder(t, logDaemon, filepath.Join(logs, "first"))
	second := startHolder(t, logDaemon, filepath.Join(logs, "second"))
	other := startHolder(t, "cat", filepath.Join(logs, "other"))
	for name, c := range map[string]struct {
		pidFile string
		found   []int
		missed  []int
		all     bool
	}{
		"the file names one":                {fmt.Sprintf("%d\n", first), []int{first}, []int{second, other}, false},
		"no file":                           {"", []int{first, second}, []int{other}, true},
		"the file names another program":    {fmt.Sprint(other), []int{first, second}, []int{other}, true},
		"the file names nobody":             {"4194304000", []int{first, second}, []int{other}, true},
		"the file names every process":      {"-1", []int{first, second}, []int{other}, true},
		"the file is empty, being written":  {"\n", []int{first, second}, []int{other}, true},
		"the file is not of a pid's making": {"first", []int{first, second}, []int{other}, true},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if c.pidFile != "" {
				path := filepath.Join(root, logDaemonPIDFile)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(c.pidFile), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l, err := findLogDaemons(t.Context(), procDir, root)
			if err != nil {
				t.Fatal(err)
			}
			has := func(pid int) bool {
				return slices.ContainsFunc(l.held, func(h heldFile) bool { return h.PID == pid })
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
			if l.all != c.all {
				t.Errorf("all processes looked at: %v, not %v", l.all, c.all)
			}
		})
	}
}

func TestALogThatTheDaemonOfThePIDFileDoesNotHoldIsLookedForEverywhere(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	known := startHolder(t, logDaemon, at("known"))
	startHolder(t, logDaemon, at("foreign"))
	lost := startHolder(t, logDaemon, at("foreign lost"))
	must(t, os.Remove(at("foreign lost")))
	must(t, os.WriteFile(at("off"), nil, 0o600))
	must(t, os.MkdirAll(at("run"), 0o755))
	must(t, os.WriteFile(at(logDaemonPIDFile), []byte(fmt.Sprint(known)), 0o600))

	for name, c := range map[string]struct {
		path   string
		role   Role
		active bool
		state  FileState
		held   bool
		all    bool // every process was looked at
	}{
		"held by that daemon":             {path: "known", active: true, state: FilePresent, held: true},
		"held by another":                 {path: "foreign", active: true, state: FilePresent, held: true, all: true},
		"deleted, held by another":        {path: "foreign lost", active: true, state: FileDeleted, held: true, all: true},
		"held by nobody, the guest is on": {path: "off", active: true, state: FilePresent, all: true},
		"gone, the guest is on":           {path: "gone", active: true, state: FileMissing, all: true},
		"gone, the guest is off":          {path: "gone", state: FileMissing, all: true},
		"there, the guest is off":         {path: "off", state: FilePresent},
		"a disk, which no daemon holds":   {path: "known", role: RoleDisk, active: true, state: FilePresent},
	} {
		t.Run(name, func(t *testing.T) {
			tree, err := openRoot("/")
			must(t, err)
			defer tree.Close()
			l := &look{root: tree}
			l.logs, err = findLogDaemons(t.Context(), procDir, dir)
			must(t, err)
			f := &File{Path: at(c.path), Role: RoleConsoleLog}
			if c.role != "" {
				f.Role = c.role
			}
			must(t, l.classify(t.Context(), f, nil, tree, nil, c.active))
			if f.State != c.state || (len(f.Holders) > 0) != c.held || l.logs.all != c.all {
				t.Errorf("it is %s, held %v, all looked at %v; want %s, %v, %v", f.State, f.Holders, l.logs.all, c.state, c.held, c.all)
			}
			if c.path == "foreign lost" && (len(f.Holders) != 1 || f.Holders[0].PID != lost) {
				t.Errorf("its holders are %v, not process %d", f.Holders, lost)
			}
		})
	}
}
