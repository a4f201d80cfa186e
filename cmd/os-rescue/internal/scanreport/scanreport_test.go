package scanreport

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/render"
	"github.com/os-rescue/os-rescue/recover"
)

// scanOf returns the output of "os-rescue scan --output json" on a host.
func scanOf(t testing.TB, host string) string {
	t.Helper()
	report := recover.Report{Host: host, Taken: time.Date(2026, 11, 22, 18, 0, 0, 0, time.UTC), Instances: []recover.Instance{
		{UUID: "11111111-0000-4000-8000-000000000001", Domain: "instance-00000001", PID: 7,
			State: recover.StateRunning, Verdict: recover.VerdictIntact,
			Files: []recover.File{{
				Path: "/i/disk", Role: recover.RoleDisk, State: recover.FilePresent, Holders: []recover.Holder{{PID: 7, FD: 13}},
			}}},
	}}
	var b bytes.Buffer
	if err := render.JSON(&b, report); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestARepeatedInstanceAndATooLargeReportAreRefused(t *testing.T) {
	good := scanOf(t, "cmp-8")
	twice := strings.Replace(good, `"instances": [`, `"instances": [`+good[strings.Index(good, "[")+1:strings.LastIndex(good, "]")]+",", 1)
	if _, err := parse(strings.NewReader(twice), mostBytes); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("an instance that is there twice: %v", err)
	}
	for extra, want := range map[int64]bool{0: false, 1: true} {
		if _, err := parse(strings.NewReader(good), int64(len(good))+extra); (err == nil) != want {
			t.Errorf("a report as large as may be, less %d: %v", extra, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(scanOf(f, "cmp-8")))
	f.Add([]byte(scanOf(f, "cmp-8") + scanOf(f, "cmp-9")))
	f.Add([]byte(`{"host":"h","taken":"2026-11-22T18:00:00Z","instances":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		reports, err := parse(bytes.NewReader(data), mostBytes)
		if (err == nil) != (len(reports) > 0) {
			t.Fatalf("%d reports and %v", len(reports), err)
		}
		for _, r := range reports {
			if check(r) != nil {
				t.Fatalf("taken though it is none: %+v", r)
			}
			var b bytes.Buffer
			if err := render.JSON(&b, r); err != nil {
				t.Fatal(err)
			}
			if again, err := parse(&b, mostBytes); err != nil || len(again) != 1 || again[0].Host != r.Host {
				t.Fatalf("written and read again: %+v, %v", again, err)
			}
		}
	})
}
