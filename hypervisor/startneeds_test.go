package hypervisor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

func TestADefinitionSaysWhichFilesItsStartNeeds(t *testing.T) {
	def := &libvirtxml.Domain{
		OS: &libvirtxml.DomainOS{
			Loader: &libvirtxml.DomainLoader{Path: "/fw/CODE.fd"},
			NVRam:  &libvirtxml.DomainNVRam{NVRam: "/nvram/x.fd", Template: "/fw/VARS.fd"},
			Kernel: "/b/kernel", Initrd: "/b/ramdisk", DTB: "relative",
		},
		Devices: &libvirtxml.DomainDeviceList{Emulator: " /usr/bin/qemu "},
	}
	var got []string
	for _, f := range neededFiles(def) {
		text := f.Path
		if f.Executable {
			text += " runs"
		}
		if f.OnlyNova {
			text += " nova"
		}
		got = append(got, text)
	}
	want := "/usr/bin/qemu runs, /fw/CODE.fd, /fw/VARS.fd nova, /b/kernel, /b/ramdisk"
	if strings.Join(got, ", ") != want {
		t.Errorf("%v; want %s", got, want)
	}
	if files := neededFiles(&libvirtxml.Domain{}); len(files) > 0 {
		t.Errorf("an empty one: %+v", files)
	}
}

func TestADefinitionSaysWhichStateItsStartFindsAgain(t *testing.T) {
	const uuid = "91e6f960-a81f-4414-8eb0-edef7cb7cfd3"
	for name, c := range map[string]struct{ devices, want string }{
		"none": {"", ""},
		"a TPM": {
			"<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>",
			"vtpm /var/lib/libvirt/swtpm/" + uuid + "/tpm2",
		},
		"an old TPM": {
			"<tpm model='tpm-tis'><backend type='emulator' version='1.2'/></tpm>",
			"vtpm /var/lib/libvirt/swtpm/" + uuid + "/tpm1.2",
		},
		"a TPM with a directory of its own": {
			"<tpm><backend type='emulator' version='2.0'><source type='dir' path='/t'/></backend></tpm>", "vtpm /t",
		},
		"a TPM of the host": {"<tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>", ""},
		"a TPM of others":   {"<tpm><backend type='external'><source type='unix' path='/s'/></backend></tpm>", ""},
		"persistent memory": {"<memory model='nvdimm'><source><path>/p</path></source><target/></memory>", "vpmem /p"},
		"more of it":        {"<memory model='virtio-pmem'><source><path>/q</path></source><target/></memory>", "vpmem /q"},
		"ordinary memory":   {"<memory model='dimm'><target/></memory>", ""},
	} {
		t.Run(name, func(t *testing.T) {
			def, err := definition("<domain><uuid>" + strings.ToUpper(uuid) + "</uuid><devices>" + c.devices + "</devices></domain>")
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, k := range keptState(def) {
				got = append(got, k.Loss+" "+k.Path)
			}
			if strings.Join(got, ", ") != c.want {
				t.Errorf("%q; want %q", got, c.want)
			}
		})
	}
}

// Each thing that is lacking is said as libvirt's own start would fail for it.
func TestWhatAStartLacksIsToldBeforeIt(t *testing.T) {
	_, logd := startDaemons(t)
	g := newGuest(t)
	doc := strings.Replace(g.xml(), "</devices>", "<interface type='network'><source network='lab'/></interface></devices>", 1)
	virsh(t, "define", writeXML(t, doc))
	client, ctx := open(t, nil)
	lacking := func(words ...string) {
		t.Helper()
		needs, err := client.StartNeeds(ctx, g.uuid)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(needs.Lacking, "; ")
		if (text == "") != (len(words) == 0) {
			t.Errorf("lacking: %q; want %q", text, words)
		}
		for _, word := range words {
			if !strings.Contains(text, word) {
				t.Errorf("nothing about %q in %q", word, text)
			}
		}
		if started := virshOrNothing(ctx, "start", g.name) != ""; started != (len(words) == 0) {
			t.Errorf("started: %t, and it lacks %q", started, text)
		}
		virshOrNothing(ctx, "destroy", g.name)
	}
	lacking(`no network "lab"`, "virsh net-define")
	network := filepath.Join(t.TempDir(), "net.xml")
	if err := os.WriteFile(network, []byte("<network><name>lab</name><bridge name='lab0'/></network>"), 0o600); err != nil {
		t.Fatal(err)
	}
	virsh(t, "net-define", network)
	lacking(`"lab" is not active`, "virsh net-start lab")

	virsh(t, "undefine", g.name)
	virsh(t, "define", writeXML(t, g.xml()))
	lacking()
	logd.kill()
	lacking("virtlogd does not answer", "refused")
	logd.start(t)
}

func TestAMachineThatTheEmulatorDoesNotKnowIsTold(t *testing.T) {
	startLibvirt(t)
	client, ctx := open(t, nil)
	tell := func(machine, emulator string) string {
		def := &libvirtxml.Domain{
			Type:    "qemu",
			OS:      &libvirtxml.DomainOS{Type: &libvirtxml.DomainOSType{Arch: "x86_64", Machine: machine}},
			Devices: &libvirtxml.DomainDeviceList{Emulator: emulator},
		}
		text, err := read(ctx, client.connections, func(conn *libvirt.Connect) (string, error) {
			return machineLack(context.WithoutCancel(ctx), conn, def)
		})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	const emulator = "/usr/bin/qemu-system-x86_64"
	if text := tell("pc", emulator); text != "" {
		t.Errorf("pc: %q", text)
	}
	if text := tell("pc-i440fx-0.1", emulator); !strings.Contains(text, "pc-i440fx-0.1") {
		t.Errorf("an old one: %q", text)
	}
	if text := tell("pc", "/usr/bin/nowhere"); text != "" {
		t.Errorf("an emulator that is missing is said of the file: %q", text)
	}
}
