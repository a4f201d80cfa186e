// Command bench measures os-rescue beside the ordinary tools that do the same
// work, in the same run on the same machine, and prints a table.
//
//	bench [-only REGEXP] [-quick] [-runs N] [-json FILE] [-dir DIR] [-size MIB]
//	      [-live-small MIB] [-live-large MIB] [-live-runs N] [-downtime MIB,...]
//
// It needs root and works in the lab's private namespaces, from the root of the
// source tree. In each figure os-rescue and its peers take turns. The table shows
// missed goals; a missed goal is not a failure.
//
// May call: nova, recover, copier, test/lab, test/openstack.
package main
