package guard

import (
	"context"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/inventory"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

// The owner's reboot of an instance that runs on an overlay would start it on the file below.
func TestAnInstanceStaysLockedWhileItsNextStartWouldOpenOtherFiles(t *testing.T) {
	diverges := func(by recover.Starter, writable bool) []recover.Divergence {
		return []recover.Divergence{{Target: "vda", By: []recover.Starter{by}, Open: "/i/u/disk.snap1", Next: "/i/u/disk", Below: true,
			Writable: writable}}
	}
	for name, c := range map[string]struct {
		verdict recover.Verdict
		next    []recover.Divergence
		locked  bool
		says    bool
	}{
		"back":                             {verdict: recover.VerdictIntact},
		"on another file through Nova":     {recover.VerdictConflict, diverges(recover.StarterNova, true), true, true},
		"on another file through libvirt":  {verdict: recover.VerdictConflict, next: diverges(recover.StarterLibvirt, true)},
		"on another file that it reads":    {verdict: recover.VerdictIntact, next: diverges(recover.StarterNova, false)},
		"its files are not back":           {verdict: recover.VerdictRecoverable, locked: true},
		"nobody knows whether it has them": {verdict: recover.VerdictUnknown, locked: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newIncidentBed(t)
			recovertest.Must(t, b.records.note(b.lost.UUID, func(r *inventory.Record) { r.Lock = "a reason" }))
			cloud := recovertest.NewCloud(t, nil)
			n := &novaSide{host: "node", problems: newProblems()}
			n.configure(func(context.Context) (recover.Cloud, error) { return cloud, nil })
			i := recover.Instance{UUID: b.lost.UUID, Domain: "instance-1", PID: 1, State: recover.StateRunning, Verdict: c.verdict,
				NextStart: c.next}
			problems := newProblems()
			j := &judgement{report: recover.Report{Instances: []recover.Instance{i}}, arbiter: &arbiter{records: b.records, problems: problems,
				locks: &locker{nova: n, incidents: b.all, records: b.records, problems: problems}}}
			j.unlockAll(t.Context())
			if r, _ := b.records.get(b.lost.UUID); (r.Lock != "") != c.locked {
				t.Errorf("its lock is %q", r.Lock)
			}
			said := strings.Join(problems.list(), ";")
			if (said != "") != c.says || c.says && !strings.Contains(said, "blockcommit") {
				t.Errorf("it says %q", said)
			}
		})
	}
}
