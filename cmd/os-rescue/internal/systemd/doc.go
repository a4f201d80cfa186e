// Package systemd is what a service says to systemd, and what systemd keeps for it.
//
// systemd keeps descriptors that a service stores for as long as the service is
// not stopped for good, and gives them to its next process, however the last one
// ended (file descriptor store; systemd.service(5), FileDescriptorStoreMax=).
//
// Reading the environment is go-systemd's part; its notifications carry no
// descriptors and wait without a limit, so they are made here.
package systemd
