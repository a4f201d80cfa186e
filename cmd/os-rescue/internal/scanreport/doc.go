// Package scanreport reads the output of "os-rescue scan --output json" from other
// hosts, strictly.
//
// May call: recover, recover/plainfile.
package scanreport
