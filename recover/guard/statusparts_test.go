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
	f.Add([]byte(`{"status":{"running":true}}`))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = joinStatus([]json.RawMessage{data}) })
}
