package qcow2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/os-rescue/os-rescue/recover/qcow2"
)

// image runs qemu-img create with these arguments before and after the name.
func image(t *testing.T, args ...string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	args = append([]string{"create", "-q", "-f", "qcow2"}, args...)
	run(t, "qemu-img", append(args, path, "64M")...)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Chmod(0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// fill writes some clusters as a guest does.
func fill(t *testing.T, f *os.File) {
	t.Helper()
	run(t, "qemu-io", "-c", "write -P 7 0 1M", "-c", "write -P 9 32M 1M",
		`json:{"driver":"qcow2","file":{"driver":"file","filename":"`+f.Name()+`"},"backing":null}`)
}

func size(t *testing.T, f *os.File) int64 {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func get64(t *testing.T, f *os.File, off int64) int64 {
	t.Helper()
	var b [8]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	return int64(binary.BigEndian.Uint64(b[:]))
}

func put(t *testing.T, f *os.File, off int64, b ...byte) {
	t.Helper()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// refcount is the offset of a cluster's reference count in the file. Counts have 16
// bits; these are in the first refcount block.
func refcount(t *testing.T, f *os.File, cluster int64) int64 {
	t.Helper()
	return get64(t, f, get64(t, f, 48)) + 2*cluster
}

// data0 is the offset of the cluster that holds the guest's first one.
func data0(t *testing.T, f *os.File) int64 {
	t.Helper()
	const offsetBits = 0x00fffffffffffe00
	return get64(t, f, get64(t, f, get64(t, f, 40))&offsetBits) & offsetBits
}

// leak adds a cluster that has a reference count but no reference.
func leak(t *testing.T, f *os.File) {
	t.Helper()
	const cluster = 1 << 16
	end := (size(t, f) + cluster - 1) / cluster
	if err := f.Truncate((end + 1) * cluster); err != nil {
		t.Fatal(err)
	}
	put(t, f, refcount(t, f, end), 0, 1)
}

func TestTheHeaderSaysWhatQemuImgWroteThere(t *testing.T) {
	tests := map[string]struct {
		args []string
		want qcow2.Header
	}{
		"plain":     {nil, qcow2.Header{Version: 3, Length: 112}},
		"version 2": {[]string{"-o", "compat=0.10"}, qcow2.Header{Version: 2, Length: 72}},
		"unusual refcounts": {[]string{"-o", "lazy_refcounts=on,refcount_bits=64"},
			qcow2.Header{Version: 3, Length: 112, LazyRefcounts: true, RefcountBits: 64}},
		"small clusters": {[]string{"-o", "cluster_size=512"},
			qcow2.Header{Version: 3, Length: 112, ClusterBits: 9}},
		"backing file": {[]string{"-u", "-b", "/nowhere/_base/f00", "-F", "raw"},
			qcow2.Header{Version: 3, Length: 112, BackingFile: "/nowhere/_base/f00", BackingFormat: "raw"}},
		"version 2 with backing file": {[]string{"-u", "-b", "base", "-F", "qcow2", "-o", "compat=0.10"},
			qcow2.Header{Version: 2, Length: 72, BackingFile: "base", BackingFormat: "qcow2"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := image(t, test.args...)
			got, err := qcow2.ParseHeader(f, size(t, f))
			if err != nil {
				t.Fatal(err)
			}
			test.want.VirtualSize = 64 << 20
			if test.want.ClusterBits == 0 {
				test.want.ClusterBits = 16
			}
			if test.want.RefcountBits == 0 {
				test.want.RefcountBits = 16
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}

	t.Run("encrypted", func(t *testing.T) {
		f := encrypted(t)
		got, err := qcow2.ParseHeader(f, size(t, f))
		want := qcow2.Header{Version: 3, Length: 112, ClusterBits: 16, VirtualSize: 64 << 20, RefcountBits: 16, Encryption: qcow2.EncryptionLUKS}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	})
	t.Run("external data file", func(t *testing.T) {
		data := filepath.Join(t.TempDir(), "data")
		f := image(t, "-o", "data_file="+data)
		got, err := qcow2.ParseHeader(f, size(t, f))
		if err != nil || !got.ExternalData || got.DataFile != data {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("dirty and corrupt", func(t *testing.T) {
		f := image(t)
		put(t, f, 79, 3)
		got, err := qcow2.ParseHeader(f, size(t, f))
		if err != nil || !got.Dirty || !got.Corrupt || got.IncompatibleFeatures != 3 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestAMalformedHeaderIsRefused(t *testing.T) {
	f := image(t, "-u", "-b", "base", "-F", "raw")
	good, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		change func(b []byte) []byte
		want   error
	}{
		"empty":                     {func([]byte) []byte { return nil }, qcow2.ErrNotQcow2},
		"three bytes":               {func(b []byte) []byte { return b[:3] }, qcow2.ErrNotQcow2},
		"raw":                       {func(b []byte) []byte { return make([]byte, 1<<16) }, qcow2.ErrNotQcow2},
		"cut in the version 2 part": {func(b []byte) []byte { return b[:71] }, qcow2.ErrMalformed},
		"cut in the version 3 part": {func(b []byte) []byte { return b[:103] }, qcow2.ErrMalformed},
		"version 4":                 {func(b []byte) []byte { b[7] = 4; return b }, qcow2.ErrMalformed},
		"huge clusters":             {func(b []byte) []byte { b[23] = 22; return b }, qcow2.ErrMalformed},
		"tiny clusters":             {func(b []byte) []byte { b[23] = 8; return b }, qcow2.ErrMalformed},
		"name beyond the cluster":   {func(b []byte) []byte { b[13] = 2; return b }, qcow2.ErrMalformed},
		"name inside the header":    {func(b []byte) []byte { b[14], b[15] = 0, 64; return b }, qcow2.ErrMalformed},
		"name too long":             {func(b []byte) []byte { b[18] = 4; return b }, qcow2.ErrMalformed},
		"header too short":          {func(b []byte) []byte { b[103] = 96; return b }, qcow2.ErrMalformed},
		"header too long":           {func(b []byte) []byte { b[100] = 1; return b }, qcow2.ErrMalformed},
		"extension too long":        {func(b []byte) []byte { b[116] = 0xff; return b }, qcow2.ErrMalformed},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := test.change(bytes.Clone(good))
			if _, err := qcow2.ParseHeader(bytes.NewReader(b), int64(len(b))); !errors.Is(err, test.want) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestCheckTellsCleanLeaksAndCorruptionApart(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test runs qemu-img as another user: run it as root")
	}
	tests := map[string]struct {
		args   []string
		tamper func(t *testing.T, f *os.File)
		check  func(r qcow2.CheckResult) bool
	}{
		"clean": {nil, func(*testing.T, *os.File) {},
			func(r qcow2.CheckResult) bool {
				return !r.Corrupt() && r.Leaks == 0 && r.ImageEnd > 2<<20 && r.Skipped == ""
			}},
		"a backing file that is missing": {[]string{"-u", "-b", "/nowhere/_base/f00", "-F", "raw"}, func(*testing.T, *os.File) {},
			func(r qcow2.CheckResult) bool { return !r.Corrupt() && r.Leaks == 0 }},
		"leaks": {nil, func(t *testing.T, f *os.File) {
			leak(t, f)
		}, func(r qcow2.CheckResult) bool { return !r.Corrupt() && r.Leaks == 1 }},
		"corruption": {nil, func(t *testing.T, f *os.File) {
			put(t, f, refcount(t, f, data0(t, f)>>16), 0, 0)
		}, func(r qcow2.CheckResult) bool { return r.Corrupt() && r.Corruptions >= 1 }},
		"both": {nil, func(t *testing.T, f *os.File) {
			leak(t, f)
			put(t, f, refcount(t, f, data0(t, f)>>16), 0, 0)
		}, func(r qcow2.CheckResult) bool { return r.Corrupt() && r.Leaks == 1 }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := image(t, test.args...)
			fill(t, f)
			test.tamper(t, f)
			r, err := qcow2.Check(t.Context(), f, qcow2.CheckOptions{})
			if err != nil || !test.check(r) {
				t.Errorf("%+v, %v", r, err)
			}
			direct, err := qcow2.Check(t.Context(), f, qcow2.CheckOptions{Direct: true})
			if err != nil || direct != r {
				t.Errorf("direct and shared: %+v, %v", direct, err)
			}
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if st := info.Sys().(*syscall.Stat_t); st.Uid != 0 || st.Gid != 0 {
				t.Errorf("the file is left to %d:%d", st.Uid, st.Gid)
			}
		})
	}
}

// Nothing closes the image: the process is killed, as a QEMU is that has it open.
func TestStaleRefcountsOfAnOpenImageAreNoCorruption(t *testing.T) {
	for name, test := range map[string]struct {
		args   []string
		tamper func(t *testing.T, f *os.File)
		check  func(r qcow2.CheckResult) bool
	}{
		"lazy refcounts": {[]string{"-o", "lazy_refcounts=on"}, func(*testing.T, *os.File) {},
			func(r qcow2.CheckResult) bool { return !r.Corrupt() && r.StaleRefcounts > 0 }},
		"and a cluster that two entries use": {[]string{"-o", "lazy_refcounts=on"}, func(t *testing.T, f *os.File) {
			l2 := get64(t, f, get64(t, f, 40)) & 0x00fffffffffffe00
			put(t, f, l2+8, binary.BigEndian.AppendUint64(nil, uint64(get64(t, f, l2)))...)
		}, func(r qcow2.CheckResult) bool { return r.Corrupt() && r.StaleRefcounts > 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			f := image(t, test.args...)
			cmd := exec.Command("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", "-c", "flush", "-c", "sigraise 9", f.Name())
			if out, err := cmd.CombinedOutput(); err == nil {
				t.Fatalf("qemu-io was not killed: %s", out)
			}
			test.tamper(t, f)
			r, err := qcow2.Check(t.Context(), f, qcow2.CheckOptions{})
			if err != nil || !test.check(r) {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

func TestCheckTakesADescriptorThatWasOpenedForDirectReads(t *testing.T) {
	f := image(t)
	fill(t, f)
	direct, err := os.OpenFile(f.Name(), os.O_RDONLY|syscall.O_DIRECT, 0)
	if errors.Is(err, syscall.EINVAL) {
		t.Skip("the file system of temporary files has no O_DIRECT")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	if r, err := qcow2.Check(t.Context(), direct, qcow2.CheckOptions{Direct: true}); err != nil || r.Corrupt() || r.ImageEnd == 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// encrypted is an encrypted image. qemu-img measures the speed of the CPU, and fails
// if the kernel has not accounted any CPU time to it yet.
func encrypted(t *testing.T) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	var out []byte
	err := errors.New("not tried")
	for n := 0; n < 50 && err != nil; n++ {
		out, err = exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=x",
			"-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", path, "64M").CombinedOutput()
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestCheckRunsNothingOnWhatItMustNotOpen(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	f := image(t, "-o", "data_file="+data)
	if err := os.Remove(data); err != nil {
		t.Fatal(err)
	}
	// Without that refusal qemu-img opens the file, even with the chain cut.
	out, err := exec.Command("qemu-img", "check",
		`json:{"driver":"qcow2","file":{"driver":"file","filename":"`+f.Name()+`"},"backing":null}`).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte(data)) {
		t.Errorf("qemu-img is expected to open the data file: %v: %s", err, out)
	}
	if _, err := qcow2.Check(t.Context(), f, qcow2.CheckOptions{}); !errors.Is(err, qcow2.ErrExternalData) {
		t.Errorf("error %v", err)
	}

	f = encrypted(t)
	if r, err := qcow2.Check(t.Context(), f, qcow2.CheckOptions{}); err != nil || r.Skipped == "" || r.Corrupt() {
		t.Errorf("encrypted: %+v, %v", r, err)
	}

	f = image(t)
	put(t, f, 72, 0, 0, 0, 0, 0, 0, 4, 0) // incompatible_features, bit 10
	if out, err := exec.Command("qemu-img", "info", "-f", "qcow2", f.Name()).CombinedOutput(); err == nil {
		t.Errorf("qemu-img is expected to refuse an unknown feature: %s", out)
	}
	if r, err := qcow2.Check(t.Context(), f, qcow2.CheckOptions{}); err != nil || !strings.Contains(r.Skipped, "0x400") || r.Corrupt() {
		t.Errorf("an unknown feature: %+v, %v", r, err)
	}
}

func TestACheckThatCantBeMadeIsAnErrorAndNoVerdict(t *testing.T) {
	f := image(t)
	fill(t, f)
	if _, err := qcow2.Check(t.Context(), f, qcow2.CheckOptions{MemoryBytes: 16 << 20}); !errors.Is(err, qcow2.ErrCheckFailed) {
		t.Errorf("too little memory: error %v", err)
	}
	put(t, f, 40, 0, 0, 0, 0, 0, 0, 0, 1) // an L1 table at no cluster's start: qemu-img won't open it
	if _, err := qcow2.Check(t.Context(), f, qcow2.CheckOptions{}); !errors.Is(err, qcow2.ErrCheckFailed) {
		t.Errorf("an image that can't be opened: error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := qcow2.Check(ctx, f, qcow2.CheckOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := qcow2.Check(t.Context(), f, qcow2.CheckOptions{}); !errors.Is(err, qcow2.ErrNoQemuImg) {
		t.Errorf("nothing installed: error %v", err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 0 || st.Gid != 0 {
		t.Errorf("the file is left to %d:%d", st.Uid, st.Gid)
	}
}

func TestACheckThatIsStoppedSaysNothingOfTheImage(t *testing.T) {
	f := image(t)
	standIn(t, "qemu-img", dies)
	_, err := qcow2.Check(t.Context(), f, qcow2.CheckOptions{})
	if !errors.Is(err, qcow2.ErrStopped) || !errors.Is(err, qcow2.ErrCheckFailed) {
		t.Errorf("killed: error %v", err)
	}
}

func FuzzParseHeader(f *testing.F) {
	v2 := append([]byte("QFI\xfb\x00\x00\x00\x02"), make([]byte, 512)...)
	v2[23] = 9
	f.Add(v2)
	v3 := append([]byte("QFI\xfb\x00\x00\x00\x03"), make([]byte, 4096)...)
	v3[23], v3[103], v3[79] = 12, 104, 4
	copy(v3[104:], "\x44\x41\x54\x41\x00\x00\x00\x04/etc")
	v3[14], v3[19] = 1, 4
	f.Add(v3)
	bitmaps := append([]byte("QFI\xfb\x00\x00\x00\x03"), make([]byte, 4096)...)
	bitmaps[23], bitmaps[63], bitmaps[103] = 12, 2, 104
	copy(bitmaps[104:], "\x23\x85\x28\x75\x00\x00\x00\x18")
	copy(bitmaps[136:], "\xe2\x79\x2a\xca\x00\x00\x00\x03raw")
	f.Add(bitmaps)
	f.Add(bitmaps[:140])
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := qcow2.ParseHeader(bytes.NewReader(data), int64(len(data)))
		if err != nil && !errors.Is(err, qcow2.ErrMalformed) && !errors.Is(err, qcow2.ErrNotQcow2) {
			t.Errorf("error %v", err)
		}
		if len(h.BackingFile) > 1023 || len(h.BackingFormat)+len(h.DataFile) > len(data) {
			t.Errorf("a name is longer than it can be: %+v", h)
		}
	})
}
