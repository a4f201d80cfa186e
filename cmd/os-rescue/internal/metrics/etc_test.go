package metrics

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/check"
)

// exported returns every metric of the guard and of the check, with its labels.
func exported(t *testing.T) map[string][]map[string]string {
	t.Helper()
	all := map[string][]map[string]string{"up": nil}
	for _, c := range []prometheus.Collector{
		&guardCollector{descriptions: describe(), snapshot: status, now: now},
		&checkCollector{descriptions: describe(), report: report()},
	} {
		for _, family := range gather(t, c) {
			for _, m := range family.GetMetric() {
				series := map[string]string{}
				for _, l := range m.GetLabel() {
					series[l.GetName()] = l.GetValue()
				}
				all[family.GetName()] = append(all[family.GetName()], series)
			}
		}
	}
	return all
}

// checkExpr parses an expression, and checks that each of its selectors can match
// a series that is really exported.
func checkExpr(t *testing.T, metrics map[string][]map[string]string, where, expr string) {
	t.Helper()
	parsed, err := parser.ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %s: %v", where, expr, err)
		return
	}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			checkSelector(t, metrics, where, selector)
		}
		return nil
	})
}

func checkSelector(t *testing.T, metrics map[string][]map[string]string, where string, selector *parser.VectorSelector) {
	t.Helper()
	series, ok := metrics[selector.Name]
	if !ok {
		t.Errorf("%s: %q is exported by nobody", where, selector.Name)
	}
	for _, m := range selector.LabelMatchers {
		switch m.Name {
		case model.MetricNameLabel, "instance", "job": // the last two are Prometheus' own
			continue
		}
		found := false
		for _, labels := range series {
			value, has := labels[m.Name]
			found = found || has && m.Matches(value)
		}
		if !found {
			t.Errorf("%s: no series of %s has %s", where, selector.Name, m)
		}
	}
}

func TestTheAlertsAreWellFormedAndUseExportedMetrics(t *testing.T) {
	metrics := exported(t)
	data, err := os.ReadFile("../../../../etc/prometheus/os-rescue.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert       string
				Expr        string
				For         string
				Labels      struct{ Severity string }
				Annotations struct{ Summary, Description, Runbook string }
			}
		}
	}
	d := yaml.NewDecoder(strings.NewReader(string(data)))
	d.KnownFields(true)
	if err := d.Decode(&rules); err != nil {
		t.Fatal(err)
	}
	alerts := map[string]string{}
	for _, group := range rules.Groups {
		for _, r := range group.Rules {
			checkExpr(t, metrics, r.Alert, r.Expr)
			if _, twice := alerts[r.Alert]; twice || r.Alert == "" || group.Name == "" {
				t.Errorf("an alert is called %q in %q", r.Alert, group.Name)
			}
			alerts[r.Alert] = r.Labels.Severity
			if a := r.Annotations; a.Summary == "" || a.Description == "" || a.Runbook == "" {
				t.Errorf("%s does not say all that an operator needs: %+v", r.Alert, a)
			}
		}
	}
	for alert, severity := range map[string]string{
		"OsRescueInstanceFilesDeleted": "critical",
		"OsRescueRunHalfDone":          "critical",
		"OsRescueGuardDown":            "warning",
		"OsRescueAbsent":               "warning",
		"OsRescueScanStale":            "warning",
		"OsRescueHeldSpaceGrowing":     "warning",
	} {
		if alerts[alert] != severity {
			t.Errorf("%s is %q", alert, alerts[alert])
		}
	}
}

func TestTheAlertOnDeletedFilesUsesTheVerdictsThatTheCheckCallsLost(t *testing.T) {
	r := check.Report{Verdicts: map[recover.Verdict]int{}}
	for _, v := range recover.Verdicts() {
		r.Verdicts[v] = 1
	}
	if n := r.Count(recover.VerdictLost, recover.VerdictConflict, recover.VerdictRecoverable); r.Lost() != n {
		t.Fatalf("the check calls %d of %v lost", r.Lost(), r.Verdicts)
	}
	for _, path := range []string{"prometheus/os-rescue.rules.yaml", "grafana/os-rescue.json"} {
		data, err := os.ReadFile("../../../../etc/" + path)
		if err != nil || !strings.Contains(string(data), "lost|conflict|recoverable") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestTheDashboardIsWellFormedAndUsesExportedMetrics(t *testing.T) {
	metrics := exported(t)
	data, err := os.ReadFile("../../../../etc/grafana/os-rescue.json")
	if err != nil {
		t.Fatal(err)
	}
	type grid struct{ X, Y, W, H int }
	type source struct{ Type, UID string }
	var dashboard struct {
		Title, UID    string
		ID            *int
		SchemaVersion int
		Templating    struct {
			List []struct{ Name, Type, Definition string }
		}
		Panels []struct {
			ID         int
			Title      string
			Type       string
			Datasource source
			GridPos    grid
			Targets    []struct {
				Expr       string
				Datasource source
				RefID      string
			}
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	if dashboard.UID == "" || dashboard.Title == "" || dashboard.SchemaVersion == 0 || dashboard.ID != nil || len(dashboard.Panels) == 0 {
		t.Errorf("the dashboard can't be imported: %+v", dashboard)
	}
	variables := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*")
	for _, v := range dashboard.Templating.List {
		name := strings.TrimSuffix(strings.TrimPrefix(v.Definition, "label_values("), ", instance)")
		if v.Type == "query" && metrics[name] == nil {
			t.Errorf("the variable %s is of %q, which nobody exports", v.Name, name)
		}
	}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	shown := ""
	for _, p := range dashboard.Panels {
		if ids[p.ID] || p.Title == "" || len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d %q is not well formed", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" {
					t.Fatalf("%q lies on %q", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" || p.Datasource != target.Datasource || refs[target.RefID] {
				t.Errorf("%q: its query %q is of %+v", p.Title, target.RefID, target.Datasource)
			}
			refs[target.RefID] = true
			checkExpr(t, metrics, p.Title, variables.Replace(target.Expr))
			shown += target.Expr
		}
	}
	for name := range metrics {
		switch name {
		case "up", "os_rescue_guard_running", "os_rescue_check_timestamp_seconds", "os_rescue_last_scan_age_seconds":
		default:
			if !strings.Contains(shown, name) {
				t.Errorf("%s is on no panel", name)
			}
		}
	}
}
