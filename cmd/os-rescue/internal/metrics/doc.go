// Package metrics shows what a guard or a check knows in Prometheus' words: over
// HTTP, or in a file for node_exporter's textfile collector. It never looks at the
// host itself.
package metrics
