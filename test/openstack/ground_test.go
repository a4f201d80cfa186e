package openstack

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// output runs a command in a bed and returns what it writes.
func output(t *testing.T, b *Bed, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code, err := b.Exec(t.Context(), Command{Args: args, Stdout: &stdout, Stderr: &stderr})
	if err != nil || code != 0 {
		t.Fatalf("%s: exit code %d, %v\n%s", strings.Join(args, " "), code, err, stderr.Bytes())
	}
	return strings.TrimSpace(stdout.String())
}

func TestTwoBedsAreUpSideBySide(t *testing.T) {
	beds := []*Bed{bare(t), bare(t)}
	for n, b := range beds {
		for _, name := range []string{Virtlogd, Libvirtd} {
			if err := b.Start(t.Context(), name); err != nil {
				t.Fatalf("bed %d: %v", n, err)
			}
		}
		// The same domain, port and path in each.
		name := []string{"first", "second"}[n]
		output(t, b, "sh", "-c", "echo "+name+" > /var/lib/os-rescue/whose")
		xml := "<domain type='qemu'><name>" + name + "</name><uuid>3f2f6a3e-2c7b-4d0f-9a53-0c1d7d5a9e01</uuid>" +
			"<memory>8192</memory><os><type>hvm</type></os></domain>"
		if err := os.WriteFile(filepath.Join(b.dir, "domain.xml"), []byte(xml), 0o600); err != nil {
			t.Fatal(err)
		}
		output(t, b, "virsh", "-c", "qemu:///system", "define", filepath.Join(b.dir, "domain.xml"))
	}
	for n, b := range beds {
		name := []string{"first", "second"}[n]
		if got := output(t, b, "cat", "/var/lib/os-rescue/whose"); got != name {
			t.Errorf("/var/lib/os-rescue of the %s is the %s's", name, got)
		}
		if got := output(t, b, "virsh", "-q", "-c", "qemu:///system", "list", "--all", "--name"); got != name {
			t.Errorf("libvirtd of the %s has the domains %q", name, got)
		}
	}
	if _, err := os.Stat("/var/lib/os-rescue/whose"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is on the machine as well: %v", err)
	}

	gone := watchTheEnd(t, beds[0])
	if err := beds[0].Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone()
	status, err := beds[1].Status(t.Context())
	if err != nil || !status[Libvirtd] || !status[Virtlogd] {
		t.Errorf("with the other one down: %v, %v", status, err)
	}
	if got := output(t, beds[1], "virsh", "-q", "-c", "qemu:///system", "list", "--all", "--name"); got != "second" {
		t.Errorf("with the other one down it has the domains %q", got)
	}
}

func TestABedHasAMachineOfItsOwn(t *testing.T) {
	b := bare(t)
	if got := output(t, b, "hostname"); got != hostName {
		t.Errorf("its host name is %q", got)
	}
	if got := output(t, b, "sh", "-c", "ls /sys/class/net; cat /sys/class/net/lo/flags"); got != "lo\n0x9" {
		t.Errorf("its network is %q, want loopback alone, and up", got)
	}
	if got := output(t, b, "sh", "-c", "ls -d /proc/[0-9]* | wc -l"); len(got) > 1 {
		t.Errorf("%s processes are seen in it", got)
	}
	if got := output(t, b, "sh", "-c", "stat -c %G /dev/kvm 2> /dev/null || echo kvm"); got != "kvm" {
		t.Errorf("/dev/kvm is the group %s's", got)
	}
	for _, path := range []string{b.NovaConf(), b.ComputeConf()} {
		if got := output(t, b, "readlink", "/etc/nova/"+filepath.Base(path)); got != path {
			t.Errorf("%s is %s", path, got)
		}
	}
}

func TestWhatIsOnTheDiskOfABedIsThereAfterTheNextUp(t *testing.T) {
	b := bare(t)
	output(t, b, "sh", "-c", "echo kept > /var/lib/nova/instances; echo lost > /run/lost")
	if err := b.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.prepare(Options{Bound: true}); err != nil {
		t.Fatal(err)
	}
	if got := output(t, b, "sh", "-c", "cat /var/lib/nova/instances; cat /run/lost 2> /dev/null || echo gone"); got != "kept\ngone" {
		t.Errorf("of what is kept and what is lost with a machine's end there is %q", got)
	}
}

func TestSingleServicesAreStoppedAndStarted(t *testing.T) {
	b := bare(t)
	for _, name := range []string{Virtlogd, Libvirtd} {
		if err := b.Start(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Stop(t.Context(), Virtlogd); err != nil {
		t.Fatal(err)
	}
	if status, err := b.Status(t.Context()); err != nil || status[Virtlogd] || !status[Libvirtd] {
		t.Errorf("with virtlogd stopped: %v, %v", status, err)
	}
	if err := b.Start(t.Context(), Virtlogd); err != nil {
		t.Fatal(err)
	}
	if status, err := b.Status(t.Context()); err != nil || !status[Virtlogd] {
		t.Errorf("with virtlogd started again: %v, %v", status, err)
	}
	for _, act := range []func(context.Context, string) error{b.Start, b.Stop} {
		if err := act(t.Context(), "nova"); err == nil || !strings.Contains(err.Error(), NovaCompute) {
			t.Errorf("of a service that there is not it says %v", err)
		}
	}
	if err := b.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(t.Context(), Virtlogd); !errors.Is(err, ErrDown) {
		t.Errorf("a service of a bed that is down starts: %v", err)
	}
	if status, err := b.Status(t.Context()); err != nil || status[Virtlogd] {
		t.Errorf("the bed is down: %v, %v", status, err)
	}
}

// Even one that is killed, and can clean nothing up.
func TestABedThatIsBoundEndsWithItsMaker(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperVariable+"="+dir)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	word := make([]byte, 3)
	if _, err := out.Read(word); err != nil || string(word) != "up\n" {
		t.Fatalf("the maker says %q, %v", word, err)
	}
	gone := watchTheEnd(t, Open(Options{Dir: dir}))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	gone()
}

// left are the processes that have to do with a bed: inside, or acting on it.
func left(t *testing.T, dir string) (found []string) {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, process := range processes {
		environ, err := os.ReadFile(process + "/environ")
		mounts, err2 := os.ReadFile(process + "/mountinfo")
		if err != nil || err2 != nil {
			continue // it has ended
		}
		if strings.Contains(string(environ)+"\x00", DirVariable+"="+dir+"\x00") || strings.Contains(string(mounts), dir) {
			command, _ := os.ReadFile(process + "/cmdline")
			found = append(found, process+" "+strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
	return found
}

// seen waits in the background until a bed has processes, and calls then.
func seen(t *testing.T, dir string, then func()) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for t.Context().Err() == nil && len(left(t, dir)) == 0 {
			time.Sleep(time.Millisecond)
		}
		then()
	}()
	return func() { <-done }
}

func TestAnUpThatFailsLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	// No service can have its configuration.
	if err := os.WriteFile(filepath.Join(dir, "etc"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wait := seen(t, dir, func() {})
	if _, err := Up(t.Context(), Options{Dir: dir, Progress: t.Output()}); err == nil {
		t.Fatal("it is up")
	}
	wait()
	if found := left(t, dir); len(found) > 0 || Open(Options{Dir: dir}).IsUp() {
		t.Errorf("it has left %q", found)
	}
}

func TestAnUpThatIsInterruptedLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	wait := seen(t, dir, cancel)
	if _, err := Up(ctx, Options{Dir: dir, Progress: t.Output()}); err == nil {
		t.Fatal("it is up")
	}
	wait()
	if found := left(t, dir); len(found) > 0 || Open(Options{Dir: dir}).IsUp() {
		t.Errorf("it has left %q", found)
	}
}

func TestNothingInsideEndsABed(t *testing.T) {
	b := bare(t)
	kill := Command{Args: []string{"sh", "-c", "kill -9 1; kill -TERM 1; kill -9 -1"}, Stderr: t.Output()}
	if _, err := b.Exec(t.Context(), kill); err != nil {
		t.Error(err)
	}
	if got := output(t, b, "echo", "still there"); got != "still there" {
		t.Errorf("it says %q", got)
	}
}
