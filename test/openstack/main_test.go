package openstack

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// helperVariable has the test program bring a bed of that directory up, light and
// bound to it, and wait for its own end; or run a command in it, when there is one.
const helperVariable = "OS_RESCUE_BED_TEST_HELPER"

func TestMain(m *testing.M) {
	Begin()
	if dir := os.Getenv(helperVariable); dir != "" {
		os.Exit(help(dir, os.Args[1:]))
	}
	os.Exit(m.Run())
}

func help(dir string, args []string) int {
	b := Open(Options{Dir: dir})
	if len(args) > 0 {
		code, err := b.Exec(context.Background(), Command{Args: args})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 99
		}
		if foreground, err := unix.IoctlGetInt(0, unix.TIOCGPGRP); err == nil && foreground != unix.Getpgrp() {
			return 98 // it has not got its terminal back
		}
		return code
	}
	if _, err := b.prepare(Options{Bound: true}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 99
	}
	fmt.Println("up")
	_, _ = io.Copy(io.Discard, os.Stdin)
	time.Sleep(time.Hour)
	return 0
}

// bare returns a bed whose machine is there, with what libvirt's daemons need and
// nothing else: not the whole of OpenStack.
func bare(t *testing.T) *Bed {
	t.Helper()
	b := Open(Options{Dir: t.TempDir(), Progress: t.Output()})
	t.Cleanup(func() {
		if err := b.Purge(context.Background()); err != nil {
			t.Error(err)
		}
	})
	made, err := b.prepare(Options{Bound: true})
	if err != nil || made == nil {
		t.Fatalf("the bed's machine: %v, %v", made, err)
	}
	files, err := configFiles(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"etc", "run"} {
		if err := makeDir(filepath.Join(b.dir, dir), ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"libvirtd.conf", "virtlogd.conf"} {
		if err := os.WriteFile(filepath.Join(b.dir, "etc", name), files[name], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// disk returns the file in sysfs that names the file behind the loop device of a bed's
// /var, and what it says.
func disk(t *testing.T, b *Bed) (path, file string) {
	t.Helper()
	p, err := b.machine.initProcess()
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", p.PID))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); fields[4] == "/var" {
			path = "/sys/dev/block/" + fields[2] + "/loop/backing_file"
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("the loop device of /var, in\n%s: %v", mounts, err)
	}
	return path, string(text)
}

// watchTheEnd returns a check that nothing is left of a bed that is up: no process, no
// mount (which would hold the loop device) and no loop device.
func watchTheEnd(t *testing.T, b *Bed) (gone func()) {
	t.Helper()
	p, err := b.machine.initProcess()
	if err != nil {
		t.Fatal(err)
	}
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", p.PID))
	if err != nil {
		t.Fatal(err)
	}
	path, file := disk(t, b)
	return func() {
		t.Helper()
		patience.Wait(t, "the end of process 1", func() bool { return !p.alive() })
		links, err := filepath.Glob("/proc/[0-9]*/ns/mnt")
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range links {
			if at, err := os.Readlink(link); err == nil && at == space {
				t.Errorf("%s is still in the bed", link)
			}
		}
		patience.Wait(t, "the end of the loop device", func() bool {
			text, err := os.ReadFile(path)
			return err != nil || string(text) != file
		})
	}
}
