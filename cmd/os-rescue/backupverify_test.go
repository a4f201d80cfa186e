package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/verify"
)

func TestTheVerificationOfABackupEndsWithItsExitCode(t *testing.T) {
	damaged := verify.Report{Directory: "/b", Instances: []verify.Instance{{UUID: "u1", Domain: "instance-1", Files: []verify.File{
		{Stored: "u1/disk", State: verify.StateDiffers, Reason: "it has the SHA-256 a, the manifest says b"}}}},
		Incomplete: []string{"u2"}, Unnamed: []string{"u2/disk"}}
	for name, c := range map[string]struct {
		report verify.Report
		err    error
		code   int
		says   []string
	}{
		"whole":       {verify.Report{OK: true, Directory: "/b"}, nil, exitOK, []string{"whole"}},
		"not whole":   {damaged, nil, exitUnrescued, []string{"NOT whole", "u1/disk", "the manifest says b", "u2/disk", "interrupted"}},
		"interrupted": {verify.Report{Interrupted: true, Directory: "/b"}, nil, exitInterrupted, []string{"Interrupted", "backup verify /b"}},
		"no backup":   {verify.Report{}, recover.ErrUsage, exitUsage, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{verified: c.report, err: c.err}
			o := do(t, f, call{args: "backup verify /b"})
			if o.code != c.code || len(f.calls) == 0 || f.calls[0] != "verify /b" {
				t.Errorf("exit %d, %v: %q %q", o.code, f.calls, o.out, o.err)
			}
			for _, said := range c.says {
				if !strings.Contains(o.out, said) {
					t.Errorf("%q is not said: %q", said, o.out)
				}
			}
			if c.err != nil {
				return
			}
			var got verify.Report
			if o := do(t, f, call{args: "backup verify /b --output json"}); o.code != c.code || json.Unmarshal([]byte(o.out), &got) != nil ||
				got.OK != c.report.OK {
				t.Errorf("exit %d: %q", o.code, o.out)
			}
		})
	}
	if o := do(t, &fake{}, call{args: "backup verify"}); o.code != exitUsage {
		t.Errorf("without a directory: exit %d", o.code)
	}
}
