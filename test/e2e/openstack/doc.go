// Package e2e holds the end-to-end cases on a real OpenStack: the built os-rescue
// on the bed of package openstack, with guests that can tell whether they lost
// anything.
//
// `make e2e` runs them. They need the build tag openstack, root, and the bed: they
// run inside it, bring it up when it is not, and leave it up. Every case deletes all
// instances of the bed before it begins and when it is over.
package e2e
