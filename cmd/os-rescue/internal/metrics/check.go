package metrics

import (
	"bytes"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/os-rescue/os-rescue/recover/check"
)

// checkCollector exports the result of one check.
type checkCollector struct {
	descriptions
	build  Build
	report check.Report
}

// Describe is part of prometheus.Collector.
func (c *checkCollector) Describe(ch chan<- *prometheus.Desc) {
	prometheus.DescribeByCollect(c, ch)
	ch <- c.level
}

// Collect is part of prometheus.Collector. It leaves out everything that the check
// could not find out: 0 would mean that all is well.
func (c *checkCollector) Collect(ch chan<- prometheus.Metric) {
	r := c.report
	s := sink{c.descriptions, ch}
	s.gauge(c.level, float64(r.Level.Code()))
	s.gauge(c.checked, seconds(r.Taken))
	s.info(c.build)
	if r.Verdicts != nil {
		s.looked(r.Verdicts, r.Scanned, r.Taken)
	}
	if r.Held != nil {
		s.deleted(r.Held.Files, r.Held.Bytes)
	}
	if r.Runs != nil {
		s.gauge(c.interrupted, float64(r.Interrupted()))
		s.gauge(c.halfDone, float64(r.HalfDone()))
		s.gauge(c.guard, oneIf(r.Guard.Running))
	}
	if r.Guard.Running {
		s.guarded(r.Guard)
	}
}

// WriteFile writes the result of a check to a file for node_exporter's textfile
// collector, which reads files whose names end in .prom. It replaces the file as a
// whole or not at all, readable by everybody (0644).
//
// prometheus.WriteToTextfile changes the mode by name. Another writer of the
// directory could have put a link in place of the file by then.
func WriteFile(path string, report check.Report, build Build) error {
	registry := prometheus.NewRegistry()
	if err := registry.Register(&checkCollector{descriptions: describe(), build: build, report: report}); err != nil {
		return err
	}
	families, err := registry.Gather()
	if err != nil {
		return err
	}
	var text bytes.Buffer
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(&text, family); err != nil {
			return err
		}
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // already renamed if all went well
	defer f.Close()
	if _, err := f.Write(text.Bytes()); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
