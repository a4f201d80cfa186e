package ground

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// points are the mount points of a ground.
const points = "cut -d' ' -f1,2,5 /proc/self/mountinfo"

func TestWhatTheMachineRemovesOrRenamesStaysOnAGround(t *testing.T) {
	machine(t, `mkdir -p /var/lib/os-rescue /var/lib/nova /var/lib/libvirt /etc/libvirt /srv/shown /opt/copied
		echo shown > /srv/shown/file; echo copied > /opt/copied/file`)
	t.Cleanup(func() { machine(t, "rm -rf /srv/elsewhere") })
	g := stand(t, Options{
		Dirs:   []string{"/srv/shown"},
		Copies: []string{"/opt/copied"},
		Users:  []User{{Name: "nova", Home: "/var/lib/nova"}, {Name: "libvirt-qemu", Group: "kvm"}},
		KVM:    "kvm",
	})
	g.run(t, `for dir in /var/lib/os-rescue /var/lib/nova /var/lib/libvirt /etc/libvirt /run/libvirt; do `+
		`mkdir -p $dir && mount -t tmpfs tmpfs $dir && echo ours > $dir/file || exit 1; done`)
	const look = "cat /var/lib/{os-rescue,nova,libvirt}/file /etc/libvirt/file /run/libvirt/file " +
		"/srv/shown/file /opt/copied/file && id nova && id libvirt-qemu && stat -c '%F %a %G' /dev/{full,loop0,pts,shm} && ls /dev"
	mounts, before := g.run(t, points), g.run(t, look)

	// A purge, an accident and the installation of a package.
	machine(t, `rm -rf /var/lib/os-rescue /var/lib/libvirt /etc/libvirt /opt/copied
		mv /var/lib/nova /var/lib/nova.old; mv /srv/shown /srv/elsewhere; rmdir /var/lib/nova.old
		for file in passwd group shadow gshadow; do
			cp /etc/$file /etc/$file.old; head -1 /etc/$file.old > /etc/$file.new; mv /etc/$file.new /etc/$file
		done
		rm -f /dev/full /dev/loop0; umount /dev/pts /dev/shm; rmdir /dev/pts /dev/shm`)
	t.Cleanup(func() {
		machine(t, `for file in passwd group shadow gshadow; do mv /etc/$file.old /etc/$file; done
			mknod -m 666 /dev/full c 1 7; mknod -m 660 /dev/loop0 b 7 0; mkdir /dev/pts /dev/shm
			mount -t devpts -o newinstance devpts /dev/pts; mount -t tmpfs tmpfs /dev/shm`)
	})
	if diff := cmp.Diff(mounts, g.run(t, points)); diff != "" {
		t.Errorf("mounts (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(before, g.run(t, look)); diff != "" {
		t.Errorf("the ground (-before +after):\n%s", diff)
	}
}

func TestGroundsShareNothingWithEachOtherOrTheMachine(t *testing.T) {
	o := Options{Users: []User{{Name: "nova"}}, KVM: "kvm"}
	one, other := stand(t, o), stand(t, o)
	const look = `cat /etc/passwd /etc/group; ls -lR /var/lib /var/log /run; ls -l /tmp /var/tmp /opt /root /dev /dev/shm; ` +
		"cut -d' ' -f5 /proc/self/mountinfo"
	before, outside := other.run(t, look), machine(t, look)
	one.run(t, `mkdir -p /var/lib/os-rescue && cd /var/lib/os-rescue && for dir in . /var/log /run /tmp /var/tmp /opt /root /dev/shm; do `+
		`echo one > $dir/one || exit 1; done; sed -i /nova/d /etc/passwd /etc/group; chmod 666 /dev/loop-control; rm /dev/full; `+
		`chown 1:1 /dev/kvm /dev/null; mount -t tmpfs tmpfs /var/lib/os-rescue`)
	if diff := cmp.Diff(before, other.run(t, look)); diff != "" {
		t.Errorf("the other ground (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(outside, machine(t, look)); diff != "" {
		t.Errorf("the machine (-before +after):\n%s", diff)
	}
}

func TestAGroundShowsOnlyWhatWasAskedFor(t *testing.T) {
	const places = "/srv /root /opt /home /var /var/lib /var/tmp /run /tmp /mnt"
	machine(t, `for dir in `+places+`; do mkdir -p $dir/secret; echo secret > $dir/secret/file; done
		mkdir -p /srv/shown/below /srv/source /opt/copied; ln -s /srv/shown /srv/link
		echo shown > /srv/shown/below/file; echo bound > /srv/source/file; echo copied > /opt/copied/file; chown 12:34 /opt/copied/file
		mkdir /srv/shown/mounted; mount -t tmpfs tmpfs /srv/shown/mounted; echo mounted > /srv/shown/mounted/file`)
	t.Cleanup(func() {
		machine(t, `umount /srv/shown/mounted; for dir in `+places+`; do rm -rf $dir/secret; done; rm -rf /srv/* /opt/*`)
	})
	g := stand(t, Options{
		Dirs:   []string{"/srv/shown/below", "/srv/shown", "/srv/link", "/srv/missing", "/", "/etc", "/usr/bin", "/tmp"},
		Binds:  []Bind{{Source: "/srv/source", Target: "/srv/target", ReadOnly: true}, {Source: "/srv/source/file", Target: "/mnt/dir/file"}},
		Copies: []string{"/opt/copied", "/opt/missing"},
	})
	found := g.run(t, `for dir in `+places+`; do [ ! -e $dir/secret ] || echo $dir/secret; done; `+
		`ls -d /srv/source /srv/missing /opt/missing 2>&- || true`)
	if found != "" {
		t.Errorf("of the machine are seen:\n%s", found)
	}
	for file, want := range map[string]string{
		"/srv/shown/below/file": "shown", "/srv/link/below/file": "shown", "/srv/shown/mounted/file": "mounted",
		"/srv/target/file": "bound", "/mnt/dir/file": "bound", "/opt/copied/file": "copied",
	} {
		if got := g.run(t, "cat "+file); got != want {
			t.Errorf("%s says %q, want %q", file, got, want)
		}
	}
	if owner := g.run(t, "stat -c %u:%g /opt/copied/file"); owner != "12:34" {
		t.Errorf("a copy belongs to %s", owner)
	}

	var mounts []string
	for _, dir := range strings.Fields(g.run(t, "cut -d' ' -f5 /proc/self/mountinfo | sort")) {
		if !strings.HasPrefix(dir, "/lib") && dir != "/bin" && dir != "/sbin" { // of their own where /usr is not merged
			mounts = append(mounts, dir)
		}
	}
	want := []string{
		"/", "/boot", "/dev", "/dev/pts", "/dev/shm", "/mnt/dir/file", "/proc", "/run", "/srv/link", "/srv/link/mounted",
		"/srv/shown", "/srv/shown/mounted", "/srv/target", "/sys", "/usr", "/var",
	}
	if diff := cmp.Diff(want, mounts); diff != "" {
		t.Errorf("what is mounted (-want +got):\n%s", diff)
	}

	for _, line := range []string{"touch /usr/new", "touch /boot/new", "touch /srv/target/new"} {
		if a := g.try(t, line); !strings.Contains(a.Output, "Read-only") {
			t.Errorf("%s: %+v", line, a)
		}
	}
	g.run(t, "echo written > /srv/shown/below/file; echo written > /opt/copied/file")
	if got := machine(t, "cat /srv/shown/below/file /opt/copied/file"); got != "written\ncopied" {
		t.Errorf("the machine has %q, want what is shown to be written and what was copied not", got)
	}
}

func TestDevicesWorkAndThoseOfTheMachineKeepTheirGroup(t *testing.T) {
	g := stand(t, Options{KVM: "libvirt-kvm"})
	g.run(t, `echo x > /dev/null && [ $(head -c 100 /dev/zero | wc -c) = 100 ] && [ $(head -c 8 /dev/urandom | wc -c) = 8 ]`)
	if terminal := g.run(t, "script -qec tty /dev/null"); !strings.HasPrefix(terminal, "/dev/pts/") {
		t.Errorf("a new terminal is %q", terminal)
	}
	g.run(t, `cd /tmp && truncate -s 1M disk && device=$(losetup --find --show disk) && losetup --detach $device`)
	if _, err := os.Stat("/dev/kvm"); err != nil {
		return // there is nothing to own
	}
	if owner := g.run(t, "stat -c '%a %U %G' /dev/kvm"); owner != "660 root libvirt-kvm" {
		t.Errorf("/dev/kvm is %s", owner)
	}
	if owner := machine(t, "stat -c '%a %U %G' /dev/kvm"); owner != "660 root kvm" {
		t.Errorf("the machine's /dev/kvm is %s", owner)
	}
}

func TestGoAndGitWorkInTheSourceTree(t *testing.T) {
	o, err := Here(t.Context())
	do(t, err)
	g := stand(t, o)
	cwd, err := os.Getwd()
	do(t, err)
	if got := g.run(t, "pwd"); got != cwd {
		t.Errorf("the working directory is %s, it was %s", got, cwd)
	}
	for _, line := range []string{"go build -o $TMPDIR/bed ../lab/cmd/labctl", "go env GOMODCACHE GOCACHE", "git log -1 --format=%H || true"} {
		if got, want := g.run(t, line), machine(t, line); got != want {
			t.Errorf("%s says %q, on the machine %q", line, got, want)
		}
	}
}

// A node that is missing is made: here that of every loop device.
func TestAnImageVanishesWithItsMount(t *testing.T) {
	nodes, err := filepath.Glob("/dev/loop[0-9]*")
	do(t, err)
	for _, node := range nodes {
		do(t, os.Remove(node))
	}
	dir := t.TempDir()
	for _, kind := range []FileSystem{Ext4, XFS, Btrfs} {
		target := filepath.Join(dir, string(kind))
		do(t, Image{Dir: dir, Kind: kind, Size: 1 << 30}.Mount(t.Context(), target))
		device := machine(t, "findmnt --noheadings --output SOURCE,FSTYPE "+target)
		name, got, _ := strings.Cut(device, " ")
		if strings.TrimSpace(got) != string(kind) {
			t.Errorf("%s is mounted from %s", target, device)
		}
		machine(t, "umount "+target)
		backing, err := os.ReadFile("/sys/block/" + filepath.Base(name) + "/loop/backing_file")
		if err == nil && strings.HasPrefix(string(backing), dir) {
			t.Errorf("%s still has %s", name, backing)
		}
	}
	left, err := filepath.Glob(dir + "/os-rescue-*")
	do(t, err)
	if len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}
