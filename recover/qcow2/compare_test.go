package qcow2_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/os-rescue/os-rescue/recover/qcow2"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// nobody is an unprivileged account.
const nobody = 65534

// asNobody compares as that account.
func asNobody() qcow2.CompareOptions { return qcow2.CompareOptions{Account: account(nobody)} }

func account(id uint32) qcow2.Account { return qcow2.Account{UID: id, GID: id} }

// chain is a side of open images, the top one first.
func chain(members ...qcow2.Member) qcow2.Side { return qcow2.Side{Chain: members} }

func member(t *testing.T, path, format string) qcow2.Member {
	t.Helper()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return qcow2.Member{File: f, Format: format}
}

// written returns a new image after these commands of qemu-io.
func written(t *testing.T, args []string, commands ...string) string {
	t.Helper()
	f := image(t, args...)
	io := []string{"-f", "qcow2"}
	for _, c := range commands {
		io = append(io, "-c", c)
	}
	run(t, "qemu-io", append(io, f.Name())...)
	return f.Name()
}

func TestCompareTellsWhetherAGuestWouldSeeADifference(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	if err := os.WriteFile(base, []byte(strings.Repeat("a backing file. ", 1<<18)), 0o644); err != nil {
		t.Fatal(err)
	}
	overlay := func(commands ...string) qcow2.Side {
		path := written(t, []string{"-b", base, "-F", "raw"}, commands...)
		return qcow2.Side{Chain: []qcow2.Member{member(t, path, "qcow2"), member(t, base, "raw")}}
	}
	alone := func(args []string, commands ...string) qcow2.Side {
		return qcow2.Side{Chain: []qcow2.Member{member(t, written(t, args, commands...), "qcow2")}}
	}
	flat := filepath.Join(t.TempDir(), "flat")
	one := overlay("write -P 7 1M 128k")
	run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", one.Chain[0].File.Name(), flat)

	for name, tt := range map[string]struct {
		a, b qcow2.Side
		same bool
	}{
		"another order and size of clusters": {
			alone(nil, "write -P 7 0 1M", "write -P 9 32M 1M"),
			alone([]string{"-o", "cluster_size=4k"}, "write -P 9 32M 1M", "write -P 7 0 1M"),
			true,
		},
		"one byte in a cluster":         {alone(nil, "write -P 7 0 1M"), alone(nil, "write -P 7 0 1M", "write -P 8 65536 512"), false},
		"zeroes and nothing":            {alone(nil, "write -P 0 0 1M"), alone(nil), true},
		"an overlay and its flat copy":  {one, chain(member(t, flat, "raw")), true},
		"an overlay that lacks a write": {one, overlay(), false},
		"a further cluster at the end":  {alone(nil), alone(nil, "write -P 1 67043328 64k"), false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, direct := range []bool{false, true} {
				err := qcow2.Compare(t.Context(), tt.a, tt.b, qcow2.CompareOptions{Account: account(nobody), Direct: direct})
				if tt.same && err != nil || !tt.same && !errors.Is(err, qcow2.ErrDiffers) {
					t.Errorf("direct %v: %v", direct, err)
				}
			}
		})
	}
	t.Run("where", func(t *testing.T) {
		b := alone(nil, "write -P 7 1M 60k", "write -P 8 1110016 4k")
		err := qcow2.Compare(t.Context(), alone(nil, "write -P 7 1M 64k"), b, asNobody())
		if !errors.Is(err, qcow2.ErrDiffers) || !strings.Contains(err.Error(), "offset 1110016") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("sizes", func(t *testing.T) {
		larger := filepath.Join(t.TempDir(), "larger")
		run(t, "qemu-img", "create", "-q", "-f", "qcow2", larger, "65M")
		err := qcow2.Compare(t.Context(), alone(nil), chain(member(t, larger, "qcow2")), asNobody())
		if !errors.Is(err, qcow2.ErrDiffers) || !strings.Contains(err.Error(), "68157440") {
			t.Errorf("a larger disk of zeroes: %v", err)
		}
	})
	// A size in a header or of a file need not be a multiple of a sector.
	t.Run("sizes that a guest sees as the same", func(t *testing.T) {
		odd := written(t, nil)
		f, err := os.OpenFile(odd, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		put(t, f, 24, 0, 0, 0, 0, 0, 0, 1024>>8, 100) // 1124 bytes, of which QEMU shows 1024
		put(t, f, 36, 0, 0, 0, 1)                     // that need one entry in the L1 table
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		raw := filepath.Join(t.TempDir(), "raw")
		if err := os.WriteFile(raw, make([]byte, 1000), 0o644); err != nil { // QEMU shows 1024
			t.Fatal(err)
		}
		a, b := qcow2.Side{Chain: []qcow2.Member{member(t, odd, "qcow2")}}, qcow2.Side{Chain: []qcow2.Member{member(t, raw, "raw")}}
		if err := qcow2.Compare(t.Context(), a, b, asNobody()); err != nil {
			t.Error(err)
		}
	})
}

func TestCompareReadsABackingFileThatIsADevice(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	if err := os.WriteFile(base, []byte(strings.Repeat("a backing file. ", 1<<18)), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", "--read-only", base).Output()
	if err != nil {
		t.Skipf("no loop device: %v", err)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { run(t, "losetup", "--detach", device) })
	f, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	top := member(t, written(t, []string{"-b", base, "-F", "raw"}, "write -P 7 1M 128k"), "qcow2")
	for name, chain := range map[string][2][]qcow2.Member{
		"below an overlay": {{top, {File: f, Format: "raw"}}, {top, member(t, base, "raw")}},
		"alone":            {{{File: f, Format: "raw"}}, {member(t, base, "raw")}},
	} {
		// Root, because the device is root's. Capabilities are not needed for that.
		if err := qcow2.Compare(t.Context(), qcow2.Side{Chain: chain[0]}, qcow2.Side{Chain: chain[1]}, qcow2.CompareOptions{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A suspended QEMU has the images open and locked, and serves one over NBD.
func TestCompareAndCheckReadWhatAQEMUHasOpen(t *testing.T) {
	path := written(t, nil, "write -P 7 0 8M")
	copied := written(t, nil, "write -P 7 0 8M")
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "s")
	server := exec.CommandContext(t.Context(), "qemu-nbd", "-f", "qcow2", "-k", socket, "-x", "vda", "-t", path)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	err := patience.Retry(func() error {
		c, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		return c.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(socket, 0o777); err != nil {
		t.Fatal(err)
	}
	opt := asNobody()
	var told []float64
	opt.Progress = func(share float64) { told = append(told, share) }
	locked, other := member(t, path, "qcow2"), member(t, copied, "qcow2")
	if err := qcow2.Compare(t.Context(), chain(locked), chain(other), opt); err != nil {
		t.Errorf("a locked image: %v", err)
	}
	if len(told) == 0 || told[len(told)-1] != 1 {
		t.Errorf("the progress was %v", told)
	}
	export := qcow2.Side{Socket: socket, Export: "vda"}
	if err := qcow2.Compare(t.Context(), chain(other), export, opt); err != nil {
		t.Errorf("an export: %v", err)
	}
	run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 8 4M 512", copied)
	if err := qcow2.Compare(t.Context(), chain(other), export, opt); !errors.Is(err, qcow2.ErrDiffers) {
		t.Errorf("an export that differs: %v", err)
	}
	missing := qcow2.Side{Socket: socket, Export: "vdz"}
	if err := qcow2.Compare(t.Context(), chain(other), missing, opt); !errors.Is(err, qcow2.ErrCompareFailed) {
		t.Errorf("no such export: %v", err)
	}
	larger := filepath.Join(t.TempDir(), "larger")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", larger, "65M")
	run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 7 0 8M", larger)
	if err := qcow2.Compare(t.Context(), chain(member(t, larger, "qcow2")), export, opt); !errors.Is(err, qcow2.ErrDiffers) {
		t.Errorf("an export of a smaller disk: %v", err)
	}
	unprivileged := account(nobody)
	r, err := qcow2.Check(t.Context(), locked.File, qcow2.CheckOptions{InService: &unprivileged})
	if err != nil || r.Corrupt() || r.ImageEnd == 0 {
		t.Errorf("check of a locked image: %+v, %v", r, err)
	}
}

func TestAComparisonThatCantBeMadeIsAnErrorAndNoVerdict(t *testing.T) {
	a := written(t, nil, "write -P 7 0 1M")
	side := qcow2.Side{Chain: []qcow2.Member{member(t, a, "qcow2")}}
	opt := asNobody()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := qcow2.Compare(ctx, side, side, opt); !errors.Is(err, context.Canceled) || errors.Is(err, qcow2.ErrCompareFailed) {
		t.Errorf("cancelled: %v", err)
	}
	data := filepath.Join(t.TempDir(), "data")
	other := chain(qcow2.Member{File: image(t, "-o", "data_file="+data), Format: "qcow2"})
	if err := qcow2.Compare(t.Context(), side, other, opt); !errors.Is(err, qcow2.ErrExternalData) {
		t.Errorf("an external data file: %v", err)
	}
	other = chain(qcow2.Member{File: encrypted(t), Format: "qcow2"})
	err := qcow2.Compare(t.Context(), side, other, opt)
	if !errors.Is(err, qcow2.ErrCompareFailed) || !strings.Contains(err.Error(), "encrypted") {
		t.Errorf("an encrypted image: %v", err)
	}
	other = chain(qcow2.Member{File: side.Chain[0].File, Format: "vmdk"})
	err = qcow2.Compare(t.Context(), side, other, opt)
	if !errors.Is(err, qcow2.ErrCompareFailed) || !strings.Contains(err.Error(), `the format "vmdk"`) {
		t.Errorf("a format that names other files: %v", err)
	}
	for _, wrong := range []qcow2.Side{{}, {Chain: side.Chain, Socket: "/s"}} {
		err := qcow2.Compare(t.Context(), side, wrong, opt)
		if !errors.Is(err, qcow2.ErrCompareFailed) || !strings.Contains(err.Error(), "a chain or an export") {
			t.Errorf("neither a chain nor an export: %v", err)
		}
	}
	if err := os.Chmod(a, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := qcow2.Compare(t.Context(), side, side, opt); !errors.Is(err, qcow2.ErrCompareFailed) {
		t.Errorf("a file that qemu-img may not read: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if err := qcow2.Compare(t.Context(), side, side, opt); !errors.Is(err, qcow2.ErrNoQemuImg) {
		t.Errorf("nothing installed: %v", err)
	}
}

func TestTheContextEndsAComparisonThatHangs(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "s")
	mute, err := net.Listen("unix", socket) // says nothing to whoever connects
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	if err := os.Chmod(socket, 0o777); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		if c, err := mute.Accept(); err == nil {
			defer c.Close()
			cancel()
			_, _ = c.Read(make([]byte, 1)) // until qemu-img is gone
		}
	}()
	side := qcow2.Side{Chain: []qcow2.Member{member(t, written(t, nil, "write -P 7 0 1M"), "qcow2")}}
	err = qcow2.Compare(ctx, side, qcow2.Side{Socket: socket, Export: "vda"}, asNobody())
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// standIn makes a script run instead of one of the tools.
func standIn(t *testing.T, tool, script string) {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, tool), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// dies lets a stand-in end by a signal: of its own, the first process of a PID namespace gets none.
const dies = "ulimit -t 1; while :; do :; done"

// qemu-img ends with 1 when the disks differ, and so do the tools around it when they fail.
func TestAnExitCodeAloneIsNoVerdict(t *testing.T) {
	side := qcow2.Side{Chain: []qcow2.Member{member(t, written(t, nil), "qcow2")}}
	for name, tool := range map[string][2]string{
		"a limit that can't be set": {"prlimit", "echo prlimit: failed to set the AS resource limit: Operation not permitted >&2; exit 1"},
		"setpriv":                   {"setpriv", "exit 1"},
		"silence":                   {"qemu-img", "exit 0"},
		"killed":                    {"qemu-img", "echo Warning: Image size mismatch!; " + dies},
	} {
		t.Run(name, func(t *testing.T) {
			standIn(t, tool[0], tool[1])
			err := qcow2.Compare(t.Context(), side, side, asNobody())
			if !errors.Is(err, qcow2.ErrCompareFailed) || errors.Is(err, qcow2.ErrDiffers) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestQemuImgHasNoCapabilitiesWhoeverItRunsAs(t *testing.T) {
	side := qcow2.Side{Chain: []qcow2.Member{member(t, written(t, nil), "qcow2")}}
	standIn(t, "qemu-img", `
while read -r key value; do
	case $key in Uid:|Cap*|NoNewPrivs:) echo $key $value;; esac
done < /proc/self/status >&2
exit 2`)
	for uid, uids := range map[uint32]string{0: "Uid: 0 0 0 0", nobody: "Uid: 65534 65534 65534 65534"} {
		err := qcow2.Compare(t.Context(), side, side, qcow2.CompareOptions{Account: account(uid)})
		if err == nil {
			t.Fatal("the stand-in did not run")
		}
		for _, want := range []string{
			uids,
			"CapEff: 0000000000000000",
			"CapPrm: 0000000000000000",
			"CapInh: 0000000000000000",
			"CapAmb: 0000000000000000",
			"NoNewPrivs: 1",
		} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%d: %q is missing in %v", uid, want, err)
			}
		}
	}
}

func TestQemuImgReachesNoProcessOfItsAccount(t *testing.T) {
	side := qcow2.Side{Chain: []qcow2.Member{member(t, written(t, nil), "qcow2")}} // with the real one
	guest := exec.Command("sleep", "3600")
	guest.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if err := guest.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = guest.Process.Kill(); _ = guest.Wait() }()
	standIn(t, "qemu-img", fmt.Sprintf(`
exec >&2
echo "it is $$ of $(id -u)"
kill -0 %[1]d 2>&- && echo it can kill a guest
prlimit --pid %[1]d --nofile=10:10 2>&- && echo it can starve a guest
exit 2`, guest.Process.Pid))
	err := qcow2.Compare(t.Context(), side, side, qcow2.CompareOptions{Account: account(nobody)})
	if err == nil || !strings.Contains(err.Error(), "it is 1 of 65534") || strings.Contains(err.Error(), "it can") {
		t.Error(err)
	}
}

func TestTheHeaderTellsWhatAMirrorWouldLose(t *testing.T) {
	f := image(t)
	parse := func() qcow2.Header {
		t.Helper()
		h, err := qcow2.ParseHeader(f, size(t, f))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	if h := parse(); h.Snapshots != 0 || h.Bitmaps {
		t.Errorf("a new image: %+v", h)
	}
	run(t, "qemu-img", "snapshot", "-c", "one", f.Name())
	run(t, "qemu-img", "snapshot", "-c", "two", f.Name())
	run(t, "qemu-img", "bitmap", "--add", "-f", "qcow2", f.Name(), "b")
	if h := parse(); h.Snapshots != 2 || !h.Bitmaps {
		t.Errorf("with two snapshots and a bitmap: %+v", h)
	}
}
