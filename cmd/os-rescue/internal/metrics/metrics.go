package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
)

// Build is what a binary knows of itself.
type Build struct {
	Version string
	Commit  string
	Go      string
}

// descriptions are the metrics, which guard and check have in common but for those
// of one of them alone. docs/reference.md lists them.
type descriptions struct {
	instances    *prometheus.Desc
	heldFiles    *prometheus.Desc
	heldBytes    *prometheus.Desc
	deletedFiles *prometheus.Desc
	deletedBytes *prometheus.Desc
	scanned      *prometheus.Desc
	scanAge      *prometheus.Desc
	incidents    *prometheus.Desc
	seen         *prometheus.Desc
	released     *prometheus.Desc
	problems     *prometheus.Desc
	guard        *prometheus.Desc
	build        *prometheus.Desc
	level        *prometheus.Desc
	checked      *prometheus.Desc
	interrupted  *prometheus.Desc
	halfDone     *prometheus.Desc
}

func describe() descriptions {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("os_rescue_"+name, help, labels, nil)
	}
	return descriptions{
		instances:    desc("instances", "Instances of this host by the verdict of the last scan.", "verdict"),
		heldFiles:    desc("held_files", "Files that the guard holds open."),
		heldBytes:    desc("held_bytes", "What the files take on disk that the guard holds open."),
		deletedFiles: desc("held_deleted_files", "Deleted files that are still open."),
		deletedBytes: desc("held_deleted_bytes", "What deleted files take on disk because they are still open."),
		scanned:      desc("last_scan_timestamp_seconds", "When the instances were looked at for the last time, as a Unix time."),
		scanAge:      desc("last_scan_age_seconds", "How long ago that was when this was collected or written."),
		incidents:    desc("open_incidents", "Instances that exist and whose deleted files the guard holds; replaced: they run on other files by now.", "replaced"),
		seen:         desc("incidents_total", "Incidents that the guard has noticed since it started."),
		released:     desc("released_files_total", "Deleted files that the guard has let go since it started, by reason.", "reason"),
		problems:     desc("problems", "What keeps the guard from its work at the moment."),
		guard:        desc("guard_running", "1 while a guard runs on this host."),
		build:        desc("build_info", "The version; always 1.", "version", "commit", "goversion"),
		level:        desc("check_level", "What the last check found: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN."),
		checked:      desc("check_timestamp_seconds", "When the last check was made, as a Unix time."),
		interrupted:  desc("interrupted_runs", "Runs that were interrupted and not finished since."),
		halfDone:     desc("half_done_instances", "Instances in the middle of a live rescue that was interrupted."),
	}
}

// sink is where one collection goes.
type sink struct {
	descriptions
	ch chan<- prometheus.Metric
}

func (s sink) gauge(d *prometheus.Desc, value float64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func (s sink) counter(d *prometheus.Desc, value float64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, labels...)
}

// info is the version.
func (s sink) info(b Build) { s.gauge(s.build, 1, b.Version, b.Commit, b.Go) }

// looked is what a look at the instances has shown.
func (s sink) looked(verdicts map[recover.Verdict]int, at, now time.Time) {
	for _, v := range recover.Verdicts() {
		s.gauge(s.instances, float64(verdicts[v]), string(v))
	}
	if at.IsZero() {
		return
	}
	s.gauge(s.scanned, seconds(at))
	s.gauge(s.scanAge, max(now.Sub(at).Seconds(), 0))
}

// guarded is what a guard knows beyond its scan and the deleted files.
func (s sink) guarded(g recover.GuardStatus) {
	open := map[bool]int{}
	for _, i := range g.Incidents {
		open[i.Replaced]++
	}
	s.gauge(s.heldFiles, float64(g.Held.Files))
	s.gauge(s.heldBytes, float64(g.Held.Bytes))
	s.gauge(s.incidents, float64(open[false]), "false")
	s.gauge(s.incidents, float64(open[true]), "true")
	s.counter(s.seen, float64(g.IncidentsSeen))
	for _, reason := range keeper.ReleaseReasons() {
		s.counter(s.released, float64(g.Released[reason]), string(reason))
	}
	s.gauge(s.problems, float64(len(g.Problems)))
}

func (s sink) deleted(files int, bytes int64) {
	s.gauge(s.deletedFiles, float64(files))
	s.gauge(s.deletedBytes, float64(bytes))
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
