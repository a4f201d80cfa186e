package guard

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestAStatusOfAnySizeArrivesInSmallParts(t *testing.T) {
	for _, size := range []int{0, 1, 51, 700} {
		status := Status{
			Running:  true,
			Report:   recover.Report{Host: "node", Instances: []recover.Instance{}},
			Problems: []string{"Nova is away"},
		}
		for n := range size {
			path := fmt.Sprintf("/var/lib/nova/instances/%s/%s", recovertest.UUID(n), strings.Repeat("x", 200))
			status.Incidents = append(status.Incidents, Incident{UUID: recovertest.UUID(n), Paths: []string{path}})
			status.Report.Instances = append(status.Report.Instances, recover.Instance{
				UUID:  recovertest.UUID(n),
				Files: []recover.File{{Path: path}},
			})
		}
		parts := splitStatus(status)
		for _, p := range parts {
			if len(p) > 100<<10 {
				t.Errorf("a part of %d instances has %d bytes", size, len(p))
			}
		}
		got, err := joinStatus(parts)
		recovertest.Must(t, err)
		if diff := cmp.Diff(status, got, cmpopts.IgnoreUnexported(recover.Instance{}, recover.File{})); diff != "" {
			t.Errorf("of %d instances comes back: %s", size, diff)
		}
	}
}

func FuzzGuardStatus(f *testing.F) {
	f.Add([]byte(`{"status":{"running":true}}`), []byte(`{"instances":[{"uuid":"u"}]}`))
	f.Add([]byte(`{"status":{"incidents":[{"uuid":"u","paths":["/a"]}]}}`), []byte(`{"status":{"incidents":[{}]}} {}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		status, err := joinStatus([]json.RawMessage{a, b})
		if err != nil {
			return
		}
		again, err := joinStatus(splitStatus(status))
		if err != nil || len(again.Report.Instances) != len(status.Report.Instances) || len(again.Incidents) != len(status.Incidents) {
			t.Errorf("%d instances and %d incidents come back as %d and %d: %v", len(status.Report.Instances), len(status.Incidents),
				len(again.Report.Instances), len(again.Incidents), err)
		}
	})
}
