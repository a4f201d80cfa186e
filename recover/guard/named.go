package guard

import (
	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/scan"
)

// named returns the files of the instances directory that definitions name, by their paths, which
// may be among more names than are looked at; and the instances that are known. The last full scan
// says it. Of an instance that it could not judge, or has not seen, the guard's record does, and
// until a scan has succeeded, what an earlier guard held: libvirt may be gone with the files.
func (t *treeScan) named() (files []holdMemory, known map[string]bool) {
	known = map[string]bool{}
	judged := map[string]bool{}
	report, ended := t.last.get()
	for _, i := range report.Instances {
		known[i.UUID] = true
		judged[i.UUID] = i.Verdict != recover.VerdictUnknown
		for _, f := range i.Files {
			if judged[i.UUID] && (f.State != recover.FilePresent || f.Inode == 0 || f.OtherRoot) {
				continue
			}
			files = append(files, memoryOf(f, i.UUID))
		}
	}
	for _, uuid := range t.records.uuids() {
		known[uuid] = true
		if r, ok := t.records.get(uuid); ok && !judged[uuid] {
			for _, f := range scan.ExpectedFiles(r.Domain, t.path) {
				files = append(files, memoryOf(f, uuid))
			}
		}
	}
	if ended.IsZero() {
		for _, m := range t.holds.rememberedNamed() {
			for _, uuid := range m.Owners {
				known[uuid] = true
			}
			files = append(files, m)
		}
	}
	kept := files[:0]
	for _, m := range files {
		if (m.Role != recover.RoleOther || m.Opened) && m.Role != recover.RoleDiskInfo && recover.IsBelow(m.Path, t.path) {
			kept = append(kept, m)
		}
	}
	return kept, known
}

// memoryOf is what is known of a file that a definition names.
func memoryOf(f recover.File, uuid string) holdMemory {
	m := holdMemory{Path: f.Path, Belongs: f.Path, Owners: []string{uuid}, Role: f.Role, Format: f.Format, Target: f.Target,
		Backing: f.Backing}
	if f.State == recover.FilePresent {
		m.Device, m.Inode, m.Birth = f.Device, f.Inode, f.Birth
	}
	return m
}
