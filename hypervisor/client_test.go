package hypervisor

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

func TestNoLibvirtIsUnavailableAndSaysWhatToTry(t *testing.T) {
	_, err := Open(t.Context(), Options{URI: "qemu+unix:///system?socket=/nowhere"})
	if !errors.Is(err, recover.ErrUnavailable) {
		t.Fatalf("error %v, want ErrUnavailable", err)
	}
	for _, want := range []string{"/nowhere", "libvirtd or virtqemud", "virsh -c"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not name %q", err, want)
		}
	}
}

func TestDomainsAreListedWithAllThatLibvirtKnows(t *testing.T) {
	startLibvirt(t)
	g := newGuest(t)
	c, ctx := open(t, nil)
	if domains, err := c.Domains(ctx); err != nil || len(domains) != 0 {
		t.Fatalf("an empty host has domains %v, error %v", domains, err)
	}
	if err := c.Define(ctx, g.xml()); err != nil {
		t.Fatal(err)
	}
	want := recover.Domain{
		UUID: g.uuid, Name: g.name, State: recover.StateShutOff, Persistent: true,
		Disks: []recover.Disk{
			{Target: "vda", Device: "disk", Chain: []recover.Image{file(g.file("disk"), "qcow2")}},
			{Target: "vdb", Device: "disk", ChainKnown: true, Chain: []recover.Image{file(g.file("data"), "raw")}},
			{Target: "hda", Device: "cdrom", ReadOnly: true, ChainKnown: true, Chain: []recover.Image{{Source: recover.SourceNone}}},
		},
		ConsoleLogs: []string{g.file("console.log")},
	}
	compare(ctx, t, c, want)

	if err := c.Start(ctx, g.uuid, true); err != nil {
		t.Fatal(err)
	}
	want.State, want.PauseReason = recover.StatePaused, recover.PauseUser
	want.Next = &recover.Definition{Disks: slices.Clone(want.Disks)}
	want.Disks[0].Chain = append(want.Disks[0].Chain, file(g.file("base"), "raw"))
	want.Disks[0].ChainKnown = true
	want.PID = qemuOf(t, g.uuid)
	label := run(t, "sh", "-c", "echo +$(id -u libvirt-qemu):+$(getent group kvm | cut -d: -f3)") // the configured user and group
	want.DACLabel = label
	compare(ctx, t, c, want)

	version, err := c.Version(ctx)
	if err != nil || !strings.HasPrefix(version, "libvirt ") || !strings.Contains(version, ", QEMU ") {
		t.Errorf("version %q, error %v", version, err)
	}
}

func TestSuspendResumeDestroyStartReachTheirState(t *testing.T) {
	startLibvirt(t)
	g := newGuest(t)
	c, ctx := open(t, nil)
	virsh(t, "define", writeXML(t, g.xml()))
	steps := []struct {
		name string
		do   func() error
		want string
	}{
		{"start", func() error { return c.Start(ctx, g.uuid, false) }, "running (booted)"},
		{"start again", func() error { return c.Start(ctx, g.uuid, true) }, "running (booted)"},
		{"resume while running", func() error { return c.Resume(ctx, g.uuid) }, "running (booted)"},
		{"suspend", func() error { return c.Suspend(ctx, g.uuid) }, "paused (user)"},
		{"suspend again", func() error { return c.Suspend(ctx, g.uuid) }, "paused (user)"},
		{"resume", func() error { return c.Resume(ctx, g.uuid) }, "running (unpaused)"},
		{"suspend for destroy", func() error { return c.Suspend(ctx, g.uuid) }, "paused (user)"},
		{"destroy while paused", func() error { return c.Destroy(ctx, g.uuid) }, "shut off (destroyed)"},
		{"destroy again", func() error { return c.Destroy(ctx, g.uuid) }, "shut off (destroyed)"},
		{"start paused", func() error { return c.Start(ctx, g.uuid, true) }, "paused (user)"},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if got := virsh(t, "domstate", "--reason", g.name); got != s.want {
			t.Fatalf("after %s virsh shows %q, want %q", s.name, got, s.want)
		}
	}
	if err := c.Destroy(ctx, g.uuid); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func(context.Context, string) error{"suspend": c.Suspend, "resume": c.Resume} {
		if err := do(ctx, g.uuid); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), g.name) || !strings.Contains(err.Error(), g.uuid) {
			t.Errorf("%s of a shut off domain: error %v, want ErrState with name and UUID", name, err)
		}
	}
}

func TestAnUnknownUUIDIsErrNoDomain(t *testing.T) {
	startLibvirt(t)
	c, ctx := open(t, nil)
	for name, do := range everyCall(c) {
		t.Run(name, func(t *testing.T) {
			if err := do(ctx); !errors.Is(err, recover.ErrNoDomain) || !strings.Contains(err.Error(), testUUID) {
				t.Errorf("error %v, want ErrNoDomain with the UUID", err)
			}
		})
	}
}

func TestACancelledContextStopsBeforeTheCall(t *testing.T) {
	startLibvirt(t)
	g := newGuest(t)
	issued := 0
	c, ctx := open(t, func(string) { issued++ })
	if err := c.Define(ctx, g.xml()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	issued = 0
	all := everyCall(c)
	all["Define"] = func(ctx context.Context) error { return c.Define(ctx, g.xml()) }
	all["Domains"] = func(ctx context.Context) error { _, err := c.Domains(ctx); return err }
	all["Version"] = func(ctx context.Context) error { _, err := c.Version(ctx); return err }
	for name, do := range all {
		if err := do(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error %v, want context.Canceled", name, err)
		}
	}
	if issued != 0 {
		t.Errorf("%d libvirt calls were made", issued)
	}
}

func TestAClosedClientSaysSo(t *testing.T) {
	startLibvirt(t)
	c, ctx := open(t, nil)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for name, do := range everyCall(c) {
		if err := do(ctx); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: error %v, want ErrClosed", name, err)
		}
	}
}

func TestXMLBringsBackAForgottenDomain(t *testing.T) {
	startLibvirt(t)
	g := newGuest(t)
	c, ctx := open(t, nil)
	for _, how := range []string{"define", "create"} {
		t.Run(how, func(t *testing.T) {
			virsh(t, how, writeXML(t, g.xml()))
			doc, err := c.XML(ctx, g.uuid)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(doc, "passwd='sesame'") {
				t.Error("the definition has lost its secrets")
			}
			if _, live, err := parseDomain(doc); err != nil || live {
				t.Errorf("the definition is a live one (%v), error %v", live, err)
			}
			if how == "create" {
				d, err := c.Domain(ctx, g.uuid)
				if err != nil || d.Persistent {
					t.Errorf("a transient domain is called persistent, error %v", err)
				}
				if err := c.Destroy(ctx, g.uuid); err != nil {
					t.Fatal(err)
				}
			} else {
				virsh(t, "undefine", g.name)
			}
			if err := c.Define(ctx, doc); err != nil {
				t.Fatal(err)
			}
			if err := c.Start(ctx, g.uuid, false); err != nil {
				t.Fatal(err)
			}
			if err := c.Destroy(ctx, g.uuid); err != nil {
				t.Fatal(err)
			}
			virsh(t, "undefine", g.name)
		})
	}
}

func TestCountersOfAPausedDomainWithDeletedFilesComeFromQEMU(t *testing.T) {
	startLibvirt(t)
	g := newGuest(t)
	c, ctx := open(t, nil)
	virsh(t, "define", writeXML(t, g.xml()))
	if _, err := c.Counters(ctx, g.uuid); !errors.Is(err, ErrState) {
		t.Errorf("counters of a shut off domain: error %v, want ErrState", err)
	}
	virsh(t, "start", g.name)
	patience.Wait(t, "the guest's writes", func() bool {
		got, err := c.Counters(ctx, g.uuid)
		if err != nil {
			t.Fatal(err)
		}
		return got["vdb"].WriteRequests == 1
	})
	if err := c.Suspend(ctx, g.uuid); err != nil {
		t.Fatal(err)
	}
	overlay, err := os.Stat(g.file("disk"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"disk", "data", "base"} {
		if err := os.Remove(g.file(name)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.Counters(ctx, g.uuid)
	if err != nil {
		t.Fatal(err)
	}
	for target, highest := range map[string]uint64{
		"vda": uint64(overlay.Size()), // qcow2: an offset in the file, not in the disk
		"vdb": 0x4000*512 + 4096,      // raw: the two are the same
	} {
		n := got[target]
		if n.WriteRequests != 1 || n.WriteBytes != 4096 || n.HighestOffset != highest {
			t.Errorf("%s: %+v, want one write of 4096 bytes and highest offset %d", target, n, highest)
		}
	}
	t.Logf("%+v, overlay's length %d", got, overlay.Size())
}

func TestAStaleOrMissingPIDFileIsPIDZero(t *testing.T) {
	startLibvirt(t)
	g := newGuest(t)
	c, ctx := open(t, nil)
	virsh(t, "define", writeXML(t, g.xml()))
	pidFile := filepath.Join(defaultRunDir, g.name+".pid")
	if err := os.WriteFile(pidFile, []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := pidOf(ctx, t, c, g); got != 0 {
		t.Errorf("a shut off domain has pid %d", got)
	}
	virsh(t, "start", g.name)
	real := qemuOf(t, g.uuid)
	// Without its pid file killGuests does not find it, and a later test's qemuOf would.
	t.Cleanup(func() { _ = syscall.Kill(real, syscall.SIGKILL) })
	if got := pidOf(ctx, t, c, g); got != real {
		t.Errorf("pid %d, want %d", got, real)
	}
	for _, text := range []string{"", "\n", "-5", "0", "12x", strings.Repeat("9", 40)} {
		if err := os.WriteFile(pidFile, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := pidOf(ctx, t, c, g); got != 0 {
			t.Errorf("pid file %q gave pid %d", text, got)
		}
	}
	if err := os.Remove(pidFile); err != nil {
		t.Fatal(err)
	}
	if got := pidOf(ctx, t, c, g); got != 0 {
		t.Errorf("no pid file gave pid %d", got)
	}
}

func TestJobsPauseReasonAndSavedMemoryAreSeen(t *testing.T) {
	startLibvirt(t)
	g := newGuest(t)
	c, ctx := open(t, nil)
	virsh(t, "define", writeXML(t, g.xml()))
	virsh(t, "start", g.name)

	virsh(t, "blockcopy", g.name, "vdb", "--dest", g.file("copy"), "--format", "raw", "--transient-job")
	if diff := cmp.Diff(map[string]string{"vdb": "copy"}, domain(ctx, t, c, g).BlockJobs); diff != "" {
		t.Errorf("block jobs during a copy (-want +got)\n%s", diff)
	}
	virsh(t, "blockjob", g.name, "vdb", "--abort")

	virsh(t, "backup-begin", g.name, writeXML(t, `<domainbackup mode='pull'><server transport='unix' socket='/var/lib/libvirt/qemu/nbd'/>
		<disks>
			<disk name='vdb' type='file' backupmode='full'><scratch file='`+g.file("scratch")+`'/></disk>
			<disk name='vda' backup='no'/>
		</disks></domainbackup>`))
	d := domain(ctx, t, c, g)
	if d.Job != "backup" || d.BlockJobs["vdb"] != "backup" {
		t.Errorf("during a backup: job %q, block jobs %v", d.Job, d.BlockJobs)
	}
	virsh(t, "domjobabort", g.name)
	patience.Wait(t, "the backup to end", func() bool { return domain(ctx, t, c, g).Job == "" })
	if d := domain(ctx, t, c, g); len(d.BlockJobs) != 0 {
		t.Errorf("block jobs %v after all ended", d.BlockJobs)
	}

	virsh(t, "managedsave", g.name)
	d = domain(ctx, t, c, g)
	if !cmp.Equal(d.Losses, []string{"saved-memory"}) {
		t.Errorf("losses %v of a domain with saved memory", d.Losses)
	}
	if d.Saved == nil || len(d.Saved.Disks) != len(d.Disks) || d.Saved.Disks[0].Chain[0].Path != d.Disks[0].Chain[0].Path {
		t.Errorf("its saved image names %+v", d.Saved)
	}
}

func TestADiskErrorIsAPauseReasonOfItsOwn(t *testing.T) {
	startLibvirt(t)
	g := newGuest(t)
	c, ctx := open(t, nil)
	virsh(t, "define", writeXML(t, strings.ReplaceAll(g.xml(), g.file("data"), fullDisk(t, g))))
	if err := c.Start(ctx, g.uuid, false); err != nil {
		t.Fatal(err)
	}
	patience.Wait(t, "the guest to meet the full file system", func() bool { return domain(ctx, t, c, g).State == recover.StatePaused })
	if got := domain(ctx, t, c, g).PauseReason; got != recover.PauseIOError {
		t.Errorf("pause reason %q, want %q", got, recover.PauseIOError)
	}
}

func TestWithoutAnAgentFreezeIsErrNoAgent(t *testing.T) {
	startLibvirt(t)
	g := newGuest(t)
	c, ctx := open(t, nil)
	channel := `<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>`
	for name, xml := range map[string]string{
		"no channel":            g.xml(),
		"nobody at the channel": strings.Replace(g.xml(), "</devices>", channel+"</devices>", 1),
	} {
		t.Run(name, func(t *testing.T) {
			virsh(t, "define", writeXML(t, xml))
			if err := c.Freeze(ctx, g.uuid, time.Second); !errors.Is(err, recover.ErrNoAgent) {
				t.Errorf("shut off: error %v, want ErrNoAgent", err)
			}
			virsh(t, "start", g.name)
			if err := c.Freeze(ctx, g.uuid, time.Second); !errors.Is(err, recover.ErrNoAgent) {
				t.Errorf("running: error %v, want ErrNoAgent", err)
			}
			if err := c.Thaw(ctx, g.uuid, time.Second); !errors.Is(err, recover.ErrNoAgent) {
				t.Errorf("thaw: error %v, want ErrNoAgent", err)
			}
			status, err := os.ReadFile(filepath.Join(defaultRunDir, g.name+".xml"))
			if err != nil {
				t.Fatal(err)
			}
			const want = "<agentTimeout>-2</agentTimeout>"
			if strings.Contains(string(status), "agentTimeout") && !strings.Contains(string(status), want) {
				t.Error("the agent's time limit was not put back")
			}
			virsh(t, "destroy", g.name)
		})
	}
}

// everyCall is each method about one domain, for a domain that is not there.
func everyCall(c *Client) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Domain":   func(ctx context.Context) error { _, err := c.Domain(ctx, testUUID); return err },
		"XML":      func(ctx context.Context) error { _, err := c.XML(ctx, testUUID); return err },
		"Counters": func(ctx context.Context) error { _, err := c.Counters(ctx, testUUID); return err },
		"Suspend":  func(ctx context.Context) error { return c.Suspend(ctx, testUUID) },
		"Resume":   func(ctx context.Context) error { return c.Resume(ctx, testUUID) },
		"Freeze":   func(ctx context.Context) error { return c.Freeze(ctx, testUUID, time.Second) },
		"Thaw":     func(ctx context.Context) error { return c.Thaw(ctx, testUUID, time.Second) },
		"Destroy":  func(ctx context.Context) error { return c.Destroy(ctx, testUUID) },
		"Start":    func(ctx context.Context) error { return c.Start(ctx, testUUID, true) },
		"Mirror":   func(ctx context.Context) error { return c.Mirror(ctx, testUUID, recover.MirrorRequest{Target: "vda"}) },
		"Pivot":    func(ctx context.Context) error { return c.Pivot(ctx, testUUID, "vda") },
		"Export":   func(ctx context.Context) error { _, err := c.Export(ctx, testUUID, nil); return err },
		"MirrorState": func(ctx context.Context) error {
			_, err := c.MirrorState(ctx, testUUID, "vda")
			return err
		},
	}
}

func compare(ctx context.Context, t *testing.T, c *Client, want recover.Domain) {
	t.Helper()
	list, err := c.Domains(ctx)
	if err != nil {
		t.Fatal(err)
	}
	one, err := c.Domain(ctx, want.UUID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]recover.Domain{want}, list); diff != "" {
		t.Errorf("Domains (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(want, one); diff != "" {
		t.Errorf("Domain (-want +got)\n%s", diff)
	}
}

func domain(ctx context.Context, t *testing.T, c *Client, g guest) recover.Domain {
	t.Helper()
	d, err := c.Domain(ctx, g.uuid)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func pidOf(ctx context.Context, t *testing.T, c *Client, g guest) int {
	t.Helper()
	return domain(ctx, t, c, g).PID
}

// qemuOf finds the QEMU of a UUID by its command line.
func qemuOf(t *testing.T, uuid string) int {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		line, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(line), "-uuid\x00"+uuid+"\x00") {
			continue
		}
		var pid int
		for _, r := range filepath.Base(filepath.Dir(name)) {
			pid = pid*10 + int(r-'0')
		}
		return pid
	}
	t.Fatal("no QEMU of", uuid)
	return 0
}

// qmp sends one command to the only guest's monitor, which is free while the
// daemon is away.
func qmp(t *testing.T, command string) {
	t.Helper()
	sockets, err := filepath.Glob("/var/lib/libvirt/qemu/domain-*/monitor.sock")
	if err != nil || len(sockets) != 1 {
		t.Fatalf("monitors %v, error %v", sockets, err)
	}
	conn, err := net.Dial("unix", sockets[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(`{"execute":"qmp_capabilities"}{"execute":"` + command + `"}`)); err != nil {
		t.Fatal(err)
	}
	// Greeting, answer, answer: the second says that the command is done.
	var all strings.Builder
	buf := make([]byte, 4096)
	for strings.Count(all.String(), `"return"`) < 2 {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("the monitor said %q: %v", all.String(), err)
		}
		all.Write(buf[:n])
	}
}

func writeXML(t *testing.T, doc string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "doc.xml")
	if err := os.WriteFile(name, []byte(doc), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}
