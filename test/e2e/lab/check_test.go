package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/check"
	"github.com/os-rescue/os-rescue/test/lab"
)

// codes are the exit codes of a check, which are a contract.
var codes = map[check.Level]int{check.OK: 0, check.Warning: 1, check.Critical: 2, check.Unknown: 3}

// checked runs the check, which must come to a level: as a plugin with a file for
// node_exporter, and as JSON. It returns the JSON, the plugin's text, its performance
// data and the file's values.
func checked(
	t *testing.T, l *lab.Lab, level check.Level, args ...string,
) (report check.Report, text string, perf, metrics map[string]float64) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "os-rescue.prom")
	text = run(t, l, codes[level], append([]string{"check", "--prometheus", file}, args...)...).Stdout
	line, _, _ := strings.Cut(text, "\n")
	if !strings.HasPrefix(line, "OS-RESCUE "+string(level)+": ") {
		t.Errorf("the line is %q", line)
	}
	decode(t, run(t, l, codes[level], append([]string{"check", "--output", "json"}, args...)...).Stdout, &report)
	if report.Level != level {
		t.Errorf("as JSON it is %s: %+v", report.Level, report.Findings)
	}
	perf = map[string]float64{}
	if _, data, ok := strings.Cut(line, " | "); ok {
		for value := range strings.FieldsSeq(data) {
			m := regexp.MustCompile(`^'([a-z_]+)'=([0-9.]+)(?:s|B)?;[0-9]*;[0-9]*;0(?:;[0-9]+)?$`).FindStringSubmatch(value)
			if m == nil {
				t.Fatalf("no performance data: %q in %q", value, line)
			}
			perf[m[1]], _ = strconv.ParseFloat(m[2], 64)
		}
	}
	metrics = textfile(t, file)
	if got := metrics["os_rescue_check_level"]; got != float64(codes[level]) {
		t.Errorf("the file says that the level is %v", got)
	}
	return report, text, perf, metrics
}

// textfile returns the values in a file for node_exporter, which everybody can read.
func textfile(t *testing.T, path string) map[string]float64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode() != 0o644 {
		t.Errorf("%s: %v, %v", path, info.Mode(), err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(f)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			values[name+labelsOf(m)] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return values
}

func labelsOf(m *dto.Metric) string {
	var labels []string
	for _, l := range m.GetLabel() {
		labels = append(labels, l.GetValue())
	}
	if len(labels) == 0 {
		return ""
	}
	return "{" + strings.Join(labels, ",") + "}"
}

func TestACheckIsCriticalFromTheDeletionToTheRescue(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true, NoAgent: true})

	report, text, perf, metrics := checked(t, l, check.OK)
	says(t, text, "OS-RESCUE OK: 1 instance, no lost files | ")
	if report.Source != check.SourceScan || len(report.Findings) != 0 || len(report.Affected) != 0 {
		t.Errorf("healthy: %s", asJSON(t, report))
	}
	if perf["instances"] != 1 || perf["lost"] != 0 || perf["held_deleted"] != 0 ||
		metrics["os_rescue_instances{intact}"] != 1 || metrics["os_rescue_instances{recoverable}"] != 0 {
		t.Errorf("healthy: %v %v", perf, metrics)
	}
	checked(t, l, check.Warning, "--require-guard")

	before := listing(t, lab.InstancesDir)
	l.DeleteTree(t)
	report, text, perf, metrics = checked(t, l, check.Critical)
	says(t, text,
		"1 of 1 instance has lost files (1 recoverable): "+v.Name,
		v.UUID,
		v.Disk+": deleted",
		"held by qemu-system-x86 "+strconv.Itoa(v.QemuPID()),
		"Next: do not stop")
	if len(report.Affected) != 1 || report.Affected[0].UUID != v.UUID || report.Affected[0].Verdict != recover.VerdictRecoverable {
		t.Errorf("after the accident: %s", asJSON(t, report))
	}
	held := perf["held_deleted"]
	if perf["lost"] != 1 || held == 0 || metrics["os_rescue_held_deleted_bytes"] == 0 || metrics["os_rescue_instances{recoverable}"] != 1 {
		t.Errorf("after the accident: %v %v", perf, metrics)
	}
	checked(t, l, check.Warning, "--critical", "2")
	checked(t, l, check.OK, "--critical", "3", "--warning", "2")
	checked(t, l, check.Warning, "--critical", "3", "--warning", "2", "--warning-held", fmt.Sprint(int64(held)/2))
	checked(t, l, check.Critical, "--critical", "3", "--warning", "2", "--critical-held", fmt.Sprint(int64(held)/2))
	if len(listing(t, lab.InstancesDir)) >= len(before) {
		t.Error("a check has made files")
	}

	l.StopLibvirtd(t)
	_, text, _, metrics = checked(t, l, check.Unknown)
	says(t, text, "this host could not be scanned")
	if _, ok := metrics["os_rescue_instances{intact}"]; ok {
		t.Errorf("libvirt is down, and the instances are counted: %v", metrics)
	}
	l.StartLibvirtd(t)

	rescue(t, l, 0, "--all", "--mode", "live")
	report, _, perf, _ = checked(t, l, check.OK)
	if perf["instances"] != 1 || perf["lost"] != 0 || len(report.Runs) != 0 {
		t.Errorf("after the rescue: %v %s", perf, asJSON(t, report))
	}
	v.unharmed(t)
}

func TestALiveRunThatWasKilledIsCriticalUntilItIsFinished(t *testing.T) {
	l := lab.New(t, withFailpoints)
	v := boot(t, l, lab.Spec{LogAppend: true, Swap: "raw", NoAgent: true})
	pid := v.QemuPID()
	for _, point := range []string{"place.done#2", "pivot.done#2"} {
		t.Run("killed at "+point, func(t *testing.T) {
			l.DeleteTree(t)
			killedLive(t, l, point)
			report, text, perf, metrics := checked(t, l, check.Critical, "--critical", "9", "--warning", "9")
			says(t, text, "left a live rescue half done: "+v.Name, "Next: os-rescue resume "+report.Runs[0].Run)
			if report.HalfDone() != 1 || perf["half_done"] != 1 || perf["interrupted_runs"] != 1 || metrics["os_rescue_half_done_instances"] != 1 {
				t.Errorf("%v %v %s", perf, metrics, asJSON(t, report.Runs))
			}
			run(t, l, 0, "resume", "--yes")
			_, _, perf, metrics = checked(t, l, check.OK)
			if perf["half_done"] != 0 || metrics["os_rescue_interrupted_runs"] != 0 {
				t.Errorf("after the resume: %v", perf)
			}
			v.stayed(t, pid)
		})
	}
	l.DeleteTree(t)
	killedLive(t, l, "plan.done") // before it had touched the guest
	report, _, _, _ := checked(t, l, check.Warning, "--critical", "9", "--warning", "9")
	if report.HalfDone() != 0 || report.Interrupted() != 1 || report.Lost() != 1 {
		t.Errorf("killed before anything was begun: %s", asJSON(t, report))
	}
	run(t, l, 0, "resume", "--yes")
	checked(t, l, check.OK)
}
