package recover

import (
	"os"
	"strings"
	"testing"
)

func TestALivePlanIsMadeWhereItCanBeAndSaysWhyNotBefore(t *testing.T) {
	everything := MirrorSupport{Synchronous: true, Export: true}
	for name, c := range map[string]struct {
		support MirrorSupport
		prepare func(t *testing.T, h *host, g *testGuest)
		change  func(*Options)
		says    string // in the refusal; empty when it can be rescued live
	}{
		"a disk":             {everything, nil, nil, ""},
		"an old libvirt":     {MirrorSupport{Missing: "libvirt 5.0 can't mirror"}, nil, nil, "libvirt 5.0 can't mirror: --mode reboot"},
		"a backup directory": {everything, nil, func(o *Options) { o.BackupDir = "/b" }, "--backup-dir needs the guest to be suspended"},
		"something of the same size at its path": {everything, func(t *testing.T, h *host, g *testGuest) {
			must(t, os.MkdirAll(g.dir, 0o755))
			must(t, os.WriteFile(g.disk, make([]byte, len(g.content[g.disk])), 0o600))
		}, nil, "another file stands at"},
		"the same, to be moved aside": {everything, func(t *testing.T, h *host, g *testGuest) {
			must(t, os.MkdirAll(g.dir, 0o755))
			must(t, os.WriteFile(g.disk, []byte("x"), 0o600))
		}, func(o *Options) { o.ReplaceExisting = true }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.hv.support = c.support
			g := h.add(1, guestOptions{base: "b"})
			h.purge()
			if c.prepare != nil {
				c.prepare(t, h, g)
			}
			o := options(g)
			if c.change != nil {
				c.change(&o)
			}
			o.Mode = ModeLive
			inLive := h.planned(g, CommandRescue, o)
			o.Mode = ModeAuto
			inAuto := h.planned(g, CommandRescue, o)
			if c.says == "" {
				text := strings.Join(inLive.Steps, "\n")
				if inLive.Action != ActionLive || inAuto.Action != ActionLive || !strings.Contains(text, "mirror "+g.disk) ||
					!strings.Contains(text, "while the guest runs") || strings.Contains(text, "destroy") {
					t.Fatalf("%s, %s (%s):\n%s", inLive.Action, inAuto.Action, inLive.Refusal, text)
				}
				return
			}
			if inLive.Action != ActionRefuse || !strings.Contains(inLive.Refusal, c.says) {
				t.Errorf("mode live: %s: %s", inLive.Action, inLive.Refusal)
			}
			if inAuto.Action != ActionReboot || !strings.Contains(inAuto.NotLive, c.says) {
				t.Errorf("mode auto: %s: %s %s", inAuto.Action, inAuto.NotLive, inAuto.Refusal)
			}
		})
	}
}
