package main

import (
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

func TestEndingARunByHandNeedsConsentAndKeepsUnlessItIsTold(t *testing.T) {
	const keeps, releases, loses = "end {Release:false Last:false}", "end {Release:true Last:false}", "end {Release:true Last:true}"
	for name, c := range map[string]struct {
		args     string
		stdin    string
		terminal bool
		code     int
		ends     string // the call; empty when nothing may be changed
		finished bool
	}{
		"nobody to ask":                 {args: "resume --abandon r1", code: exitUsage},
		"nobody to ask, to be let go":   {args: "resume --abandon r1 --release", code: exitUsage},
		"without a word":                {args: "resume --abandon r1 --yes", ends: keeps},
		"to be kept":                    {args: "resume --abandon r1 --keep --yes", ends: keeps},
		"to be let go":                  {args: "resume --abandon r1 --release -y", ends: releases},
		"with the last copies":          {args: "resume --abandon r1 --release --accept-loss last-copy -y", ends: loses},
		"asked, to keep":                {args: "resume --abandon r1", stdin: "keep\n", terminal: true, ends: keeps},
		"asked, to let go":              {args: "resume --abandon r1", stdin: "release\n", terminal: true, ends: releases},
		"asked, and yes says not which": {args: "resume --abandon r1", stdin: "yes\n", terminal: true, code: exitUnrescued},
		"asked, and the answer is no":   {args: "resume --abandon r1 --release", stdin: "no\n", terminal: true, code: exitUnrescued},
		"asked about the last copies": {args: "resume --abandon r1 --release --accept-loss last-copy", stdin: "yes\n",
			terminal: true, ends: loses},
		"a finished one that holds nothing": {args: "resume --abandon r1 --release", finished: true, ends: releases},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{abandoned: recover.Abandonment{Run: "r1", Finished: c.finished}}
			if !c.finished {
				f.abandoned.Instances = []recover.AbandonedInstance{{UUID: "u", Domain: "instance-1", Holdings: []recover.RunHolding{
					{Kind: recover.HoldingPin, Of: "/i/u/disk", Last: true},
				}}}
			}
			o := do(t, f, call{args: c.args, stdin: c.stdin, interactive: c.terminal})
			var ends string
			for _, said := range f.calls {
				if strings.HasPrefix(said, "end ") {
					ends = said
				}
			}
			if o.code != c.code || ends != c.ends {
				t.Errorf("exit %d, %q: %q %q", o.code, ends, o.out, o.err)
			}
			if c.terminal && (!strings.Contains(o.err, "/i/u/disk") || !strings.Contains(o.err, "last copy")) {
				t.Errorf("asked without saying what is held: %q", o.err)
			}
		})
	}
}
