// Package systemd sends the notifications of a service to systemd, and stores
// descriptors there.
//
// systemd keeps the descriptors that a service stores until the service is stopped for
// good, and gives them to its next process, no matter how the last one ended (file
// descriptor store; systemd.service(5), FileDescriptorStoreMax=).
//
// go-systemd reads the environment. Its notifications carry no descriptors and wait
// without a limit, so this package sends its own.
//
// May call: nothing of ours.
package systemd
