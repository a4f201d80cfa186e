package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/keeper"
)

// Build describes a binary.
type Build struct {
	Version string
	Commit  string
	Go      string
}

// descriptions are all metrics. docs/reference.md says which of them the guard exports,
// and which the check.
type descriptions struct {
	instances    *prometheus.Desc
	heldFiles    *prometheus.Desc
	heldBytes    *prometheus.Desc
	notHeld      *prometheus.Desc
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
		heldBytes:    desc("held_bytes", "Bytes on disk of the files that the guard holds open."),
		notHeld:      desc("unheld_files", "Files of the instances directory that are not held: too many that libvirt does not name."),
		deletedFiles: desc("held_deleted_files", "Deleted files that are still open."),
		deletedBytes: desc("held_deleted_bytes", "Bytes on disk of deleted files that are still open."),
		scanned:      desc("last_scan_timestamp_seconds", "Unix time of the last scan of the instances."),
		scanAge:      desc("last_scan_age_seconds", "Age of that scan when this metric was collected or written."),
		incidents: desc("open_incidents",
			"Existing instances whose deleted files the guard holds; replaced: they now run on other files.", "replaced"),
		seen:        desc("incidents_total", "Incidents that the guard has noticed since it started."),
		released:    desc("released_files_total", "Deleted files that the guard has released since it started, by reason.", "reason"),
		problems:    desc("problems", "Problems that keep the guard from its work at the moment."),
		guard:       desc("guard_running", "1 while a guard runs on this host."),
		build:       desc("build_info", "The version; always 1.", "version", "commit", "goversion"),
		level:       desc("check_level", "What the last check found: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN."),
		checked:     desc("check_timestamp_seconds", "Unix time of the last check."),
		interrupted: desc("interrupted_runs", "Interrupted runs that were not finished since."),
		halfDone:    desc("half_done_instances", "Instances whose live rescue was interrupted halfway."),
	}
}

// sink receives one collection.
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

// info exports the version.
func (s sink) info(b Build) { s.gauge(s.build, 1, b.Version, b.Commit, b.Go) }

// looked exports the result of a scan.
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

// guarded exports a guard's status, without its scan and the deleted files.
func (s sink) guarded(g guard.Status) {
	open := map[bool]int{}
	for _, i := range g.Incidents {
		open[i.Replaced]++
	}
	s.gauge(s.heldFiles, float64(g.Held.Files))
	s.gauge(s.heldBytes, float64(g.Held.Bytes))
	s.gauge(s.notHeld, float64(g.Held.NotHeld))
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
