// Package metrics exports the status of a guard and the result of a check as Prometheus
// metrics: over HTTP, or in a file for node_exporter's textfile collector. It never
// examines the host itself.
//
// May call: recover, check, guard, keeper.
package metrics
