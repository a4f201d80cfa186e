// Command lyingfs mounts a file system whose buffered reads lie, for tests.
//
//	lyingfs [-refuse-direct] MOUNTPOINT BACKING-DIRECTORY
//
// It prints "ready" once mounted and stays in the foreground. SIGUSR1 makes it
// refuse new O_DIRECT opens, SIGUSR2 allow them again; SIGINT or SIGTERM unmount
// it, even in use, and it ends as soon as the mount is gone.
//
// May call: test/lyingfs.
package main
