package plan_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestALivePlanIsMadeWhereItCanBeAndSaysWhyNotBefore(t *testing.T) {
	everything := recover.MirrorSupport{Synchronous: true, Export: true}
	for name, c := range map[string]struct {
		support recover.MirrorSupport
		prepare func(t *testing.T, h *runtest.Host, g *recovertest.Guest)
		change  func(*recover.Options)
		says    string // in the refusal; empty when it can be rescued live
	}{
		"a disk":             {everything, nil, nil, ""},
		"an old libvirt":     {recover.MirrorSupport{Missing: "libvirt 5.0 can't mirror"}, nil, nil, "libvirt 5.0 can't mirror: --mode reboot"},
		"a backup directory": {everything, nil, func(o *recover.Options) { o.BackupDir = "/b" }, "--backup-dir needs the guest to be suspended"},
		"something of the same size at its path": {everything, func(t *testing.T, h *runtest.Host, g *recovertest.Guest) {
			recovertest.Must(t, os.MkdirAll(g.Dir, 0o755))
			recovertest.Must(t, os.WriteFile(g.Disk, make([]byte, len(g.Content[g.Disk])), 0o600))
		}, nil, "another file stands at"},
		"the same, to be moved aside": {everything, func(t *testing.T, h *runtest.Host, g *recovertest.Guest) {
			recovertest.Must(t, os.MkdirAll(g.Dir, 0o755))
			recovertest.Must(t, os.WriteFile(g.Disk, []byte("x"), 0o600))
		}, func(o *recover.Options) { o.ReplaceExisting = true }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			h.HV.Support = c.support
			g := h.Add(1, recovertest.GuestOptions{Base: "b"})
			h.Purge()
			if c.prepare != nil {
				c.prepare(t, h, g)
			}
			o := recovertest.Options(g)
			if c.change != nil {
				c.change(&o)
			}
			o.Mode = recover.ModeLive
			inLive := h.Planned(g, recover.CommandRescue, o)
			o.Mode = recover.ModeAuto
			inAuto := h.Planned(g, recover.CommandRescue, o)
			if c.says == "" {
				text := strings.Join(inLive.Steps, "\n")
				if inLive.Action != recover.ActionLive || inAuto.Action != recover.ActionLive || !strings.Contains(text, "mirror "+g.Disk) ||
					!strings.Contains(text, "while the guest runs") || strings.Contains(text, "destroy") {
					t.Fatalf("%s, %s (%s):\n%s", inLive.Action, inAuto.Action, inLive.Refusal, text)
				}
				return
			}
			if inLive.Action != recover.ActionRefuse || !strings.Contains(inLive.Refusal, c.says) {
				t.Errorf("mode live: %s: %s", inLive.Action, inLive.Refusal)
			}
			if inAuto.Action != recover.ActionReboot || !strings.Contains(inAuto.NotLive, c.says) {
				t.Errorf("mode auto: %s: %s %s", inAuto.Action, inAuto.NotLive, inAuto.Refusal)
			}
		})
	}
}

func TestALivePlanSaysHowAGuestIsProvenThatMustNotBeExported(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.Disks[0].Unexportable = "has an IOThread" })
	h.Purge()
	for wish, c := range map[recover.Verify]struct{ says, not string }{
		recover.VerifyDefault:   {"no longer than 20s (not while it runs: disk vda has an IOThread", "compare the new disks"},
		recover.VerifyRunning:   {"no longer than 20s (not while it runs: disk vda has an IOThread", "compare the new disks"},
		recover.VerifyFull:      {"compare them in full,", "IOThread"},
		recover.VerifyStructure: {"check the new images", "compare"},
	} {
		o := recovertest.Options(g)
		o.Mode, o.Verify, o.Live.MaxPause = recover.ModeLive, wish, 20*time.Second
		got := h.Planned(g, recover.CommandRescue, o)
		text := strings.Join(got.Steps, "\n")
		if got.Action != recover.ActionLive || got.Unexported == "" || !strings.Contains(text, c.says) || strings.Contains(text, c.not) {
			t.Errorf("%q: %s (%s):\n%s", wish, got.Action, got.Unexported, text)
		}
	}
}
