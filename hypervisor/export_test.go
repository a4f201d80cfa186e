package hypervisor

import (
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

func TestAnExportStandsStillWhileTheGuestWrites(t *testing.T) {
	startLibvirt(t)
	g := newGuest(t)
	c, ctx := open(t, nil)
	virsh(t, "define", writeXML(t, g.xml()))
	if err := c.Start(ctx, g.uuid, true); err != nil { // it writes when it may run
		t.Fatal(err)
	}
	socket, err := c.Export(ctx, g.uuid, bothDisks(g))
	if err != nil {
		t.Fatal(err)
	}
	shown := func(target string) string {
		copied := g.file("copy-" + target)
		run(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", "nbd+unix:///"+target+"?socket="+socket, copied)
		return run(t, "sha256sum", copied)
	}
	before := map[string]string{"vda": shown("vda"), "vdb": shown("vdb")}
	if err := c.Resume(ctx, g.uuid); err != nil {
		t.Fatal(err)
	}
	patience.Wait(t, "the guest's writes", func() bool {
		got, err := c.Counters(ctx, g.uuid)
		if err != nil {
			t.Fatal(err)
		}
		return got["vda"].WriteRequests == 1 && got["vdb"].WriteRequests == 1
	})
	for target, want := range before {
		if got := shown(target); got != want {
			t.Errorf("%s: the export shows what the guest wrote later", target)
		}
	}
	if err := c.EndExport(ctx, g.uuid); err != nil {
		t.Fatal(err)
	}
	// The same look at what the guest has now: it can tell the two apart.
	socket, err = c.Export(ctx, g.uuid, bothDisks(g))
	if err != nil {
		t.Fatal(err)
	}
	for target, was := range before {
		if shown(target) == was {
			t.Errorf("%s: the guest's writes are not seen in a later export", target)
		}
	}
	if err := c.EndExport(ctx, g.uuid); err != nil {
		t.Fatal(err)
	}
}

// bothDisks are the guest's disks for an export.
func bothDisks(g guest) []recover.ExportDisk {
	return []recover.ExportDisk{
		{Target: "vda", Scratch: g.file("scratch-vda")},
		{Target: "vdb", Scratch: g.file("scratch-vdb")},
	}
}
