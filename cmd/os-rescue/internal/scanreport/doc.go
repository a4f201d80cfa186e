// Package scanreport reads what "os-rescue scan --output json" wrote on other hosts,
// strictly.
package scanreport
