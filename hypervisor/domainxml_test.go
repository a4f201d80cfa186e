package hypervisor

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/os-rescue/os-rescue/recover"
)

func file(path, format string) recover.Image {
	return recover.Image{Source: recover.SourceFile, Path: path, Format: format}
}

func TestDomainXMLIsReadToTheLastDetail(t *testing.T) {
	const nova = "/var/lib/nova/instances/"
	const one = nova + "6f0c4e21-3a57-4c9e-9d0b-0c7b3f6c5d11/"
	const slice, store = "slices: the disk is a part of the file", "external data store"
	tests := []struct {
		fixture string
		live    bool
		want    recover.Domain
	}{
		{"local-disks.xml", true, recover.Domain{
			UUID: "6f0c4e21-3a57-4c9e-9d0b-0c7b3f6c5d11", Name: "instance-0000002a",
			Disks: []recover.Disk{
				{Target: "vda", Device: "disk", ChainKnown: true, Chain: []recover.Image{
					file(one+"disk", "qcow2"), file(nova+"_base/5b1f0f0a6c1e3b9e1a7a0d5e2c4f6a8b9d0c1e2f", "raw")}},
				{Target: "vdb", Device: "disk", ChainKnown: true, Chain: []recover.Image{
					file(one+"disk.eph0", "qcow2"), file(nova+"_base/ephemeral_10_40d1d2c", "raw")}},
				{Target: "vdc", Device: "disk", ChainKnown: true, Chain: []recover.Image{file(one+"disk.swap", "raw")}},
				{Target: "hda", Device: "cdrom", ReadOnly: true, ChainKnown: true, Chain: []recover.Image{file(one+"disk.config", "raw")}},
			},
			ConsoleLogs: []string{one + "console.log"},
			Nova: &recover.NovaMetadata{
				Name: "web & mail", Flavor: "m1.small", ProjectID: "9c2d1e7a55b24f3c8d7e6f5a4b3c2d10",
				ProjectName: "shop", UserID: "0f1b7c4f2b0e4f4aa0a6d0a1f6f6a001",
			},
			ImageLabel: "system_u:object_r:svirt_image_t:s0:c392,c662", DACLabel: "+64055:+107",
		}},
		{"volume.xml", false, recover.Domain{
			UUID: "1a2b3c4d-0000-4000-8000-000000000031", Name: "instance-00000031",
			Disks: []recover.Disk{
				{Target: "vda", Device: "disk", ChainKnown: true, Chain: []recover.Image{{Source: recover.SourceNetwork, Format: "raw"}}},
				{Target: "vdb", Device: "disk", ChainKnown: true, Chain: []recover.Image{
					{Source: recover.SourceBlock, Path: "/dev/dm-4", Format: "raw"},
				}},
				{Target: "vdc", Device: "disk", Chain: []recover.Image{file("/var/lib/nova/mnt/ab12/volume-77", "qcow2")}},
				{Target: "vdd", Device: "disk", Chain: []recover.Image{file("/var/lib/nova/mnt/ab12/volume-78", "")}},
				{Target: "vde", Device: "disk", ChainKnown: true, Chain: []recover.Image{file("/var/lib/nova/mnt/ab12/volume-79", "raw")}},
			},
			ConsoleLogs: []string{nova + "1a2b3c4d-0000-4000-8000-000000000031/console.log"},
			Nova:        &recover.NovaMetadata{Name: "db", ProjectID: "p1", ProjectName: "data", UserID: "u1"},
		}},
		{"uefi.xml", true, recover.Domain{
			UUID: "1a2b3c4d-0000-4000-8000-000000000040", Name: "instance-00000040",
			Disks: []recover.Disk{
				{Target: "sda", Device: "cdrom", ReadOnly: true, ChainKnown: true, Chain: []recover.Image{{Source: recover.SourceNone}}},
			},
			NVRAM: "/var/lib/libvirt/qemu/nvram/instance-00000040_VARS.fd", NVRAMFormat: "raw",
			Losses: []string{"nvram", "vtpm", "vpmem"},
		}},
		{"mirror.xml", true, recover.Domain{
			UUID: "1a2b3c4d-0000-4000-8000-000000000050", Name: "instance-00000050",
			Disks: []recover.Disk{
				{Target: "vda", Device: "disk", ChainKnown: true, Chain: []recover.Image{
					file("/i/disk.snap2", "qcow2"), file("/i/disk.snap1", "qcow2"), file("/i/disk", "qcow2"),
					{Source: recover.SourceBlock, Path: "/dev/vg/base", Format: "raw"}}},
				// Its last member is a qcow2 of which libvirt does not say that it ends the chain.
				{Target: "vdb", Device: "disk", Chain: []recover.Image{file("/i/disk.eph0", "qcow2"), file("/i/eph-base", "qcow2")}},
			},
			BlockJobs: map[string]string{"vda": "copy", "vdb": "active-commit"},
		}},
		{"unusual.xml", false, recover.Domain{
			UUID: "1a2b3c4d-0000-4000-8000-000000000060", Name: "handmade",
			Disks: []recover.Disk{
				{Target: "vda", Device: "disk", Chain: []recover.Image{file("/i/a", "qcow2")}, DACLabel: "+64055:+64055",
					Transient: true,
					Unusual:   []string{slice, store, "shareable: another domain may write it too"},
					LostAtEnd: []string{"it is transient, and all that was written to it ends with its QEMU"}},
				{Target: "vdb", Device: "disk", ChainKnown: true, Chain: []recover.Image{file("/i/b", "raw")}, Encrypted: true, Optional: true},
				{Target: "vdc", Device: "disk", ChainKnown: true, Chain: []recover.Image{{Source: recover.SourceOther, Format: "raw"}},
					LostAtEnd: []string{"it is a volume of a storage pool, and libvirt does not say whether its file is still there"}},
				{Target: "fda", Device: "floppy", ChainKnown: true, Chain: []recover.Image{{Source: recover.SourceNone}}},
			},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.fixture, func(t *testing.T) {
			got, live, err := parseDomain(fixture(t, tt.fixture))
			if err != nil {
				t.Fatal(err)
			}
			if live != tt.live {
				t.Errorf("live = %v, want %v", live, tt.live)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestNVRAMIsFoundInEveryFormOfTheElement(t *testing.T) {
	tests := []struct {
		name, os     string
		path, format string
		loss         bool
	}{
		{"no os", ``, "", "", false},
		{"template only, path not yet chosen", `<os><nvram template='/t'/></os>`, "", "", true},
		{"flash without an nvram element", `<os><loader type='pflash'>/c</loader></os>`, "", "", true},
		{"stateless flash", `<os><loader type='pflash' stateless='yes'>/c</loader></os>`, "", "", false},
		{"qcow2", `<os><nvram format='qcow2'>/v</nvram></os>`, "/v", "qcow2", true},
		{"typed source", `<os><nvram type='file'><source file='/v'/></nvram></os>`, "/v", "raw", true},
		{"block source", `<os><nvram type='block'><source dev='/dev/v'/></nvram></os>`, "", "", true},
		{"on two lines", "<os><nvram>\n  /v\n</nvram></os>", "/v", "raw", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, _, err := parseDomain("<domain>" + tt.os + "</domain>")
			if err != nil {
				t.Fatal(err)
			}
			if d.NVRAM != tt.path || d.NVRAMFormat != tt.format || (len(d.Losses) == 1) != tt.loss {
				t.Errorf("got %q %q %v", d.NVRAM, d.NVRAMFormat, d.Losses)
			}
		})
	}
}

// libvirt shows the name of a backing file as it made it from the image's header.
func TestTheFilesOfADirectBootAreFound(t *testing.T) {
	d, _, err := parseDomain(`<domain><os><kernel>/i/kernel</kernel><initrd>
 /i/ramdisk </initrd><dtb>b.dtb</dtb></os></domain>`)
	want := []recover.BootFile{{Kind: "kernel", Path: "/i/kernel"}, {Kind: "initrd", Path: "/i/ramdisk"}}
	if err != nil || !slices.Equal(d.Boot, want) {
		t.Errorf("%v, %v; want %v", d.Boot, err, want)
	}
}

func TestAFileHasOnePath(t *testing.T) {
	d, _, err := parseDomain(`<domain><devices><disk type='file'><driver type='qcow2'/><source file='/i/u/disk'/>
		<backingStore type='file'><format type='raw'/><source file='/i/u/../_base//b'/><backingStore/></backingStore></disk></devices></domain>`)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Disks[0].Chain[1].Path; got != "/i/_base/b" {
		t.Errorf("%s", got)
	}
}

func TestUnreadableXMLIsAnError(t *testing.T) {
	for name, doc := range map[string]string{
		"empty":       "",
		"not XML":     "domain",
		"cut":         "<domain><name>x</name>",
		"another doc": "<network/>",
		"too deep":    "<domain>" + strings.Repeat("<a>", maxXMLDepth) + strings.Repeat("</a>", maxXMLDepth) + "</domain>",
		"too large":   "<domain><name>" + strings.Repeat("x", maxXMLBytes) + "</name></domain>",
		"deep chain": "<domain><devices><disk type='file'>" + strings.Repeat("<backingStore type='file'>", 100_000) +
			strings.Repeat("</backingStore>", 100_000) + "</disk></devices></domain>",
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := parseDomain(doc); !errors.Is(err, ErrXML) {
				t.Errorf("error %v, want ErrXML", err)
			}
		})
	}
}

func FuzzDomainXML(f *testing.F) {
	names, err := filepath.Glob("testdata/*.xml")
	if err != nil || len(names) == 0 {
		f.Fatal("no fixtures", err)
	}
	for _, name := range names {
		doc, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(doc))
	}
	f.Fuzz(func(t *testing.T, doc string) {
		d, _, err := parseDomain(doc)
		if err != nil {
			if !errors.Is(err, ErrXML) {
				t.Errorf("error %v is not ErrXML", err)
			}
			return
		}
		for _, disk := range d.Disks {
			if len(disk.Chain) == 0 {
				t.Error("a disk without a chain")
			}
		}
		for _, l := range d.ConsoleLogs {
			if !filepath.IsAbs(l) {
				t.Errorf("console log %q is not absolute", l)
			}
		}
	})
}

func fixture(t *testing.T, name string) string {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}
