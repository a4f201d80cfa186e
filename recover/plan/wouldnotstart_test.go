package plan_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestWhatWouldNotStartAgainIsNotEnded(t *testing.T) {
	for name, c := range map[string]struct {
		lack func(h *runtest.Host, g *recovertest.Guest) recover.NeededFile
		says string // nothing: it is no obstacle offline
		nova bool   // nor with Nova
	}{
		"its firmware is missing": {
			lack: func(*runtest.Host, *recovertest.Guest) recover.NeededFile {
				return recover.NeededFile{Path: "/nowhere/OVMF.fd", What: "its firmware"}
			},
			says: "its firmware (/nowhere/OVMF.fd) is missing", nova: true,
		},
		"its emulator can't be run": {
			lack: func(h *runtest.Host, _ *recovertest.Guest) recover.NeededFile {
				path := filepath.Join(h.Settings.StateDir, "qemu")
				recovertest.Must(h.T, os.WriteFile(path, nil, 0o644))
				return recover.NeededFile{Path: path, What: "its emulator", Executable: true}
			},
			says: "not executable: chmod +x", nova: true,
		},
		"a directory is in its place": {
			lack: func(h *runtest.Host, _ *recovertest.Guest) recover.NeededFile {
				return recover.NeededFile{Path: h.Settings.StateDir, What: "the kernel of its direct boot"}
			},
			says: "is no file", nova: true,
		},
		"a kernel that Nova fetches anew is missing": {
			lack: func(_ *runtest.Host, g *recovertest.Guest) recover.NeededFile {
				return recover.NeededFile{Path: g.Dir + "/kernel", What: "the kernel of its direct boot"}
			},
			says: g1("kernel) is missing"),
		},
		"a template that only Nova needs is missing": {
			lack: func(*runtest.Host, *recovertest.Guest) recover.NeededFile {
				return recover.NeededFile{Path: "/nowhere/OVMF_VARS.fd", What: "the template of its UEFI variables", OnlyNova: true}
			},
			nova: true,
		},
		"libvirt lacks something": {says: "virtlogd is away", nova: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := runtest.NewHost(t)
			g, other := h.Add(1, recovertest.GuestOptions{}), h.Add(2, recovertest.GuestOptions{})
			recovertest.Must(t, os.Remove(g.Disk))
			recovertest.Must(t, os.Remove(other.Disk))
			h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) {
				if c.lack == nil {
					d.Lacking = []string{"virtlogd is away"}
				} else {
					d.Needs = []recover.NeededFile{c.lack(h, g)}
				}
			})
			o := recovertest.Options(g)
			o.Selection = recover.Selection{All: true}
			todo := h.Planned(g, recover.CommandRescue, o)
			if (todo.Action == recover.ActionRefuse) != (c.says != "") || !strings.Contains(todo.Refusal, c.says) {
				t.Errorf("offline: %s %q; want %q", todo.Action, todo.Refusal, c.says)
			}
			if other := h.Planned(other, recover.CommandRescue, o); other.Action != recover.ActionReboot {
				t.Errorf("the other one: %s %s", other.Action, other.Refusal)
			}
			o.NoReboot = true
			if todo := h.Planned(g, recover.CommandRescue, o); todo.Action != recover.ActionReboot {
				t.Errorf("it is to be left off: %s %s", todo.Action, todo.Refusal)
			}
			o.NoReboot, o.Mode = false, recover.ModeLive
			if todo := h.Planned(g, recover.CommandRescue, o); todo.Action != recover.ActionLive {
				t.Errorf("live: %s %s", todo.Action, todo.Refusal)
			}

			h.Online()
			o = recovertest.Options(g)
			if todo := h.Planned(g, recover.CommandRescue, o); (todo.Action == recover.ActionRefuse) != c.nova {
				t.Errorf("with Nova: %s %q", todo.Action, todo.Refusal)
			}
		})
	}
}
