// Package bare has guests that need no operating system: QEMU idles, and what a guest
// would write is written through its device's own backend (HMP's qemu-io), so that every
// byte that a guest should have is known. They start in a tenth of a second; test/oracle
// and test/chaos play with them on the lab.
package bare
