package recovertest

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"

	"github.com/os-rescue/os-rescue/recover"
)

// scratchFiles names files for an export that are not there yet.
func scratchFiles(s *hypervisorSuite, d recover.Domain, targets ...string) (disks []recover.ExportDisk) {
	s.Helper()
	for _, target := range targets {
		path := filepath.Join(filepath.Dir(s.disk(d, target).Chain[0].Path), "scratch-"+target)
		disks = append(disks, recover.ExportDisk{Target: target, Scratch: path})
	}
	return disks
}

// shownHash is the hash of what an export shows under a name.
func shownHash(s *hypervisorSuite, socket, name string) string {
	s.Helper()
	path := filepath.Join(s.TempDir(), "shown")
	export := "nbd+unix:///" + name + "?socket=" + socket
	out, err := exec.CommandContext(s.ctx, "qemu-img", "convert", "-f", "raw", "-O", "raw", export, path).CombinedOutput()
	if err != nil {
		s.Fatalf("qemu-img (needed for this test): %v: %s", err, out)
	}
	f, err := os.Open(path)
	s.must(err)
	defer f.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	s.must(err)
	return hex.EncodeToString(sum.Sum(nil))
}

// isShown tells whether anything is served under a name.
func isShown(s *hypervisorSuite, socket, name string) bool {
	return exec.CommandContext(s.ctx, "qemu-img", "info", "nbd+unix:///"+name+"?socket="+socket).Run() == nil
}

// contentHashes is what the guest sees on its disks, by target.
func contentHashes(s *hypervisorSuite, g SuiteGuest) map[string]string {
	s.Helper()
	socket, err := s.hv.Export(s.ctx, g.UUID, scratchFiles(s, s.domain(g), "vda", "vdb"))
	s.must(err)
	sums := map[string]string{"vda": shownHash(s, socket, "vda"), "vdb": shownHash(s, socket, "vdb")}
	s.must(s.hv.EndExport(s.ctx, g.UUID))
	return sums
}

// testExports: what the guest writes later is not seen.
func testExports(s *hypervisorSuite) {
	g := s.guest(KindRunning)
	s.works("EndExport of no export", s.hv.EndExport(s.ctx, g.UUID))
	d := s.domain(g)
	disks := scratchFiles(s, d, "vda", "vdb")
	socket, err := s.hv.Export(s.ctx, g.UUID, disks)
	s.must(err)
	if st, err := os.Stat(socket); !filepath.IsAbs(socket) || err != nil || st.Mode().Type() != os.ModeSocket {
		s.Errorf("%s is no socket: %v", socket, err)
	}
	first := map[string]string{"vda": shownHash(s, socket, "vda"), "vdb": shownHash(s, socket, "vdb")}
	if first["vda"] == first["vdb"] {
		s.Error("both disks are shown as one")
	}
	during := s.domain(g)
	if during.Job == "" || during.BlockJobs["vda"] == "" || during.State != recover.StateRunning {
		s.Errorf("during an export: %+v", during)
	}
	if _, err := s.hv.Export(s.ctx, g.UUID, scratchFiles(s, d, "vda")); err == nil {
		s.Error("a second export is no error")
	}
	s.asked(g)
	for target, want := range first {
		if shownHash(s, socket, target) != want {
			s.Errorf("%s: the export shows what the guest wrote later", target)
		}
	}
	for _, what := range []string{"EndExport", "a second EndExport"} {
		s.works(what, s.hv.EndExport(s.ctx, g.UUID))
	}
	for _, disk := range disks {
		if _, err := os.Lstat(disk.Scratch); err == nil {
			s.Errorf("EndExport left %s", disk.Scratch)
		}
	}
	if isShown(s, socket, "vda") {
		s.Error("after EndExport the disk is shown still")
	}
	if after := s.domain(g); !reflect.DeepEqual(after, d) {
		s.Errorf("after EndExport the domain is\n%+v\nand was\n%+v", after, d)
	}

	// A later export shows it, and no disk that was not asked for.
	socket, err = s.hv.Export(s.ctx, g.UUID, scratchFiles(s, d, "vdb"))
	s.must(err)
	if shownHash(s, socket, "vdb") == first["vdb"] {
		s.Error("a later export does not show what the guest wrote")
	}
	if isShown(s, socket, "vda") {
		s.Error("an export of vdb shows vda")
	}
	// It ends with the domain's QEMU.
	s.must(s.hv.Destroy(s.ctx, g.UUID))
	if off := s.domain(g); off.Job != "" || len(off.BlockJobs) != 0 || isShown(s, socket, "vdb") {
		s.Errorf("the domain is off, and its disk is shown still: %+v", off)
	}
	s.works("EndExport of a domain that is off", s.hv.EndExport(s.ctx, g.UUID))
	if _, err := s.hv.Export(s.ctx, g.UUID, disks); err == nil {
		s.Error("Export of a domain that is off is no error")
	}
}

// testFailedExports: an export that can't be leaves nothing.
func testFailedExports(s *hypervisorSuite) {
	g := s.guest(KindRunning)
	d := s.domain(g)
	disks := append(scratchFiles(s, d, "vdb"), recover.ExportDisk{Target: "vdz", Scratch: filepath.Join(s.TempDir(), "scratch")})
	if _, err := s.hv.Export(s.ctx, g.UUID, disks); err == nil {
		s.Error("Export of a disk that is not there is no error")
	}
	if now := s.domain(g); !reflect.DeepEqual(now, d) {
		s.Errorf("after an Export that failed the domain is\n%+v\nand was\n%+v", now, d)
	}
	if _, err := os.Lstat(disks[0].Scratch); err == nil {
		s.Errorf("an Export that failed left %s", disks[0].Scratch)
	}
}
