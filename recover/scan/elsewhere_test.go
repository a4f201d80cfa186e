package scan

import (
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

// ofAnother is a deleted file that process 30, of no instance, has open under that link.
func ofAnother(link string) candidate {
	c := held(link, 9, 0)
	c.PID, c.FD, c.Process, c.elsewhere = 30, 4, "tail", true
	return c
}

func TestNoFileIsLostWhileAnyProcessHasADeletedOneOfItsName(t *testing.T) {
	uuid := recovertest.UUID(1)
	path := "/i/" + uuid + "/disk"
	for name, c := range map[string]struct {
		link string
		pid  int
		role recover.Role
		want recover.Verdict
	}{
		"at its path":                    {link: path + " (deleted)", want: recover.VerdictUnknown},
		"and its QEMU runs without it":   {link: path + " (deleted)", pid: 10, want: recover.VerdictUnknown},
		"of another instance":            {link: "/i/" + recovertest.UUID(2) + "/disk (deleted)", want: recover.VerdictLost},
		"of another name":                {link: "/i/" + uuid + "/disk.eph0 (deleted)", want: recover.VerdictLost},
		"a backing file":                 {link: path + " (deleted)", role: recover.RoleBacking, want: recover.VerdictUnknown},
		"what is made anew is no matter": {link: path + " (deleted)", role: recover.RoleConsoleLog, want: recover.VerdictIntact},
	} {
		t.Run(name, func(t *testing.T) {
			if c.role == "" {
				c.role = recover.RoleDisk
			}
			l := lookOf(t, fakeTree{})
			l.deleted = func() ([]candidate, error) { return []candidate{ofAnother(c.link)}, nil }
			i := recover.Instance{UUID: uuid, Process: recover.ProcessIdentity{PID: c.pid}, Files: []recover.File{{Path: path, Role: c.role}}}
			i.Definition.Disks = []recover.Disk{{Chain: []recover.Image{{Source: recover.SourceFile, Path: path}}}}
			recovertest.Must(t, l.files(t.Context(), &i, nil, fakeTree{}))
			verdict.Instance(&i)
			if i.Verdict != c.want {
				t.Errorf("%s: %q", i.Verdict, i.Reasons)
			}
			said := strings.Join(append(i.Reasons, i.Possible...), ";")
			named := strings.Contains(said, "tail 30 as descriptor 4") && !strings.Contains(said, "nobody holds it")
			if c.want == recover.VerdictUnknown && !named {
				t.Errorf("it says %s", said)
			}
		})
	}
}
