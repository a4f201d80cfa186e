package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/check"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/runs"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

func now() time.Time { return time.Unix(1_800_000_000, 0) }

// status is the status of a guard in an incident.
func status() guard.Status {
	return guard.Status{
		Running: true, Scanned: now().Add(-15 * time.Second), IncidentsSeen: 4,
		Report: recover.Report{Instances: []recover.Instance{
			{Verdict: recover.VerdictIntact}, {Verdict: recover.VerdictRecoverable}, {Verdict: recover.VerdictIntact},
		}},
		Held:      guard.Held{Files: 12, Bytes: 9000, DeletedFiles: 3, DeletedBytes: 700},
		Incidents: []guard.Incident{{}, {}, {Replaced: true}}, Problems: []string{"Nova is away"},
		Released: map[keeper.ReleaseReason]int{keeper.ReleasedProven: 5},
	}
}

// report is the result of a check beside that guard.
func report() check.Report {
	g := status()
	g.Report = recover.Report{}
	return check.Report{
		Level: check.Critical, Taken: now(), Scanned: now().Add(-time.Minute), Guard: g,
		Verdicts: map[recover.Verdict]int{recover.VerdictIntact: 2, recover.VerdictRecoverable: 1},
		Held:     &check.HeldDeleted{Files: 2, Bytes: 600},
		Runs:     []runs.UnfinishedRun{{State: recover.RunInterrupted, HalfDone: []runs.HalfDone{{}, {}}}, {State: recover.RunRunning}},
	}
}

func gather(t *testing.T, c prometheus.Collector) []*dto.MetricFamily {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// samples returns the lines of an exposition that are not comments.
func samples(t *testing.T, families []*dto.MetricFamily) string {
	t.Helper()
	var text bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	var lines []string
	for line := range strings.Lines(text.String()) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

const ofVerdicts = `os_rescue_instances{verdict="conflict"} 0
os_rescue_instances{verdict="displaced"} 0
os_rescue_instances{verdict="intact"} 2
os_rescue_instances{verdict="lost"} 0
os_rescue_instances{verdict="recoverable"} 1
os_rescue_instances{verdict="unaffected"} 0
os_rescue_instances{verdict="unknown"} 0
`

const ofReleases = `os_rescue_released_files_total{reason="by-hand"} 0
os_rescue_released_files_total{reason="deleted"} 0
os_rescue_released_files_total{reason="grace"} 0
os_rescue_released_files_total{reason="moved"} 0
os_rescue_released_files_total{reason="proven"} 5
os_rescue_released_files_total{reason="space"} 0
os_rescue_released_files_total{reason="unneeded"} 0
os_rescue_unheld_files 0
`

func TestAGuardsMetrics(t *testing.T) {
	build := Build{"1.2", "abc", "go1"}
	got := samples(t, gather(t, &guardCollector{descriptions: describe(), build: build, snapshot: status, now: now}))
	want := `os_rescue_build_info{commit="abc",goversion="go1",version="1.2"} 1
os_rescue_guard_running 1
os_rescue_held_bytes 9000
os_rescue_held_deleted_bytes 700
os_rescue_held_deleted_files 3
os_rescue_held_files 12
os_rescue_incidents_total 4
` + ofVerdicts + `os_rescue_last_scan_age_seconds 15
os_rescue_last_scan_timestamp_seconds 1.799999985e+09
os_rescue_open_incidents{replaced="false"} 2
os_rescue_open_incidents{replaced="true"} 1
os_rescue_problems 1
` + ofReleases
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("wanted (-), got (+):\n%s", diff)
	}
	before := func() guard.Status { return guard.Status{Running: true} }
	got = samples(t, gather(t, &guardCollector{descriptions: describe(), build: build, snapshot: before, now: now}))
	if strings.Contains(got, "os_rescue_instances") || strings.Contains(got, "last_scan") || !strings.Contains(got, "os_rescue_problems 0") {
		t.Errorf("before its first scan:\n%s", got)
	}
}

func TestAChecksMetrics(t *testing.T) {
	got := samples(t, gather(t, &checkCollector{descriptions: describe(), report: report()}))
	want := `os_rescue_build_info{commit="",goversion="",version=""} 1
os_rescue_check_level 2
os_rescue_check_timestamp_seconds 1.8e+09
os_rescue_guard_running 1
os_rescue_half_done_instances 2
os_rescue_held_bytes 9000
os_rescue_held_deleted_bytes 600
os_rescue_held_deleted_files 2
os_rescue_held_files 12
os_rescue_incidents_total 4
` + ofVerdicts + `os_rescue_interrupted_runs 1
os_rescue_last_scan_age_seconds 60
os_rescue_last_scan_timestamp_seconds 1.79999994e+09
os_rescue_open_incidents{replaced="false"} 2
os_rescue_open_incidents{replaced="true"} 1
os_rescue_problems 1
` + ofReleases
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("wanted (-), got (+):\n%s", diff)
	}
	unmade := check.Unmade("h", errors.New("no libvirt"))
	unmade.Taken = now()
	got = samples(t, gather(t, &checkCollector{descriptions: describe(), report: unmade}))
	want = `os_rescue_build_info{commit="",goversion="",version=""} 1
os_rescue_check_level 3
os_rescue_check_timestamp_seconds 1.8e+09
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("of a check that could not be made, wanted (-), got (+):\n%s", diff)
	}
}

func TestMetricsAreServedFromTheSnapshotAlone(t *testing.T) {
	taken := 0
	h, err := Handler(func() guard.Status { taken++; return status() }, Build{})
	if err != nil {
		t.Fatal(err)
	}
	for path, code := range map[string]int{"/metrics": 200, "/": 404, "/metrics/x": 404} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		text := w.Body.String()
		whole := strings.Contains(text, "os_rescue_held_files 12\n") && strings.Contains(text, "process_open_fds")
		if w.Code != code || code == 200 && !whole {
			t.Errorf("%s: %d\n%s", path, w.Code, text)
		}
	}
	if taken != 1 {
		t.Errorf("one scrape took %d snapshots: its values would not be of one moment", taken)
	}
}

func TestServeAnswersUntilItsContextEnds(t *testing.T) {
	h, err := Handler(status, Build{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, l, h) }()
	response, err := http.Get("http://" + l.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if !strings.Contains(string(body), "os_rescue_guard_running 1") {
		t.Errorf("%s", body)
	}
	if err := Serve(ctx, l.Addr().String(), h); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("at an address that is taken: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := Serve(ctx, "nonsense", h); err == nil {
		t.Error("at an address that is none")
	}
}

// Connections that never say anything take no more than their share of descriptors, and of
// the reader's time.
func TestReadersThatSayNothingTakeAFewDescriptors(t *testing.T) {
	h, err := Handler(func() guard.Status { return guard.Status{Running: true} }, Build{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := &counted{Listener: l}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, accepted, h) }()
	const silent = mostReaders + 50
	for range silent {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	// It is its turn when those before it have had their time to send a request.
	client := http.Client{Timeout: patience.Limit()}
	response, err := client.Get("http://" + l.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Error(response.Status)
	}
	if most := accepted.most.Load(); most > mostReaders {
		t.Errorf("%d connections were open at once", most)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// counted counts the connections of a listener that are open.
type counted struct {
	net.Listener
	now, most atomic.Int64
}

func (l *counted) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.most.Store(max(l.most.Load(), l.now.Add(1))) // by one caller
		conn = &countedConn{Conn: conn, close: sync.OnceFunc(func() { l.now.Add(-1) })}
	}
	return conn, err
}

type countedConn struct {
	net.Conn
	close func()
}

func (c *countedConn) Close() error {
	c.close()
	return c.Conn.Close()
}

func TestAReaderNeverSeesHalfAFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "os-rescue.prom")
	if err := WriteFile(path, report(), Build{}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	var writers sync.WaitGroup
	done := make(chan struct{})
	for n := range 2 {
		writers.Go(func() {
			for i := range 150 {
				r := report()
				if i%2 == n {
					r = check.Unmade("h", errors.New("x"))
				}
				if err := WriteFile(path, r, Build{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() { writers.Wait(); close(done) }()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		families, err := parse(bytes.NewReader(text))
		if err != nil || families["os_rescue_check_timestamp_seconds"] == nil || !bytes.HasSuffix(text, []byte("\n")) {
			t.Fatalf("%v:\n%s", err, text)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	hidden, _ := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) != 1 || len(hidden) != 0 {
		t.Errorf("left are %v %v", left, hidden)
	}
}

func TestAFileThatCanNotBeWrittenLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "os-rescue.prom")
	if err := os.Mkdir(path, 0o755); err != nil { // no file can be renamed onto it
		t.Fatal(err)
	}
	if err := WriteFile(path, report(), Build{}); err == nil {
		t.Error("it was written onto a directory")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || fmt.Sprint(len(entries)) != "1" {
		t.Errorf("left are %v, %v", entries, err)
	}
	// A link is replaced, not followed: another writer of the directory must not
	// choose which of root's files is written.
	target := filepath.Join(t.TempDir(), "shadow")
	if err := os.WriteFile(target, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.prom")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(link, report(), Build{}); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(target)
	if info, err := os.Stat(target); err != nil || string(text) != "secret" || info.Mode() != 0o600 {
		t.Errorf("the file behind a link was changed: %q, %v", text, err)
	}
}

func parse(r io.Reader) (map[string]*dto.MetricFamily, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(r)
}
