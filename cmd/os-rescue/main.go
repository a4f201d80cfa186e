// Command os-rescue brings back the disks of running OpenStack instances whose
// files were deleted under them.
//
// This package is only the command line: flags, configuration, confirmation, tables
// and progress. Package recover does the work.
package main

import (
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/config"
	"github.com/os-rescue/os-rescue/recover/procfs"
)

func main() {
	// With a handler in place, a write to a closed pager returns an error. Without
	// one it would end the process and leave a guest paused.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)

	os.Exit(carryOut(system{
		args:     os.Args[1:],
		env:      config.Environ(os.Environ()),
		stdin:    os.Stdin,
		stdout:   os.Stdout,
		stderr:   os.Stderr,
		isRoot:   os.Geteuid() == 0,
		hostname: config.Hostname(),
		proc:     procfs.Dir,
		signals:  stopSignals(),
		connect:  connect,
	}))
}

// system is the outside world of the program. Tests replace it.
type system struct {
	args           []string
	env            map[string]string
	stdin          io.Reader
	stdout, stderr io.Writer
	isRoot         bool
	hostname       string
	proc           string // where the kernel shows processes; empty: no process is looked at
	signals        <-chan os.Signal
	connect        connector
	interactive    bool // set by tests; otherwise stdin decides
}

// terminal returns w as a file if it is a terminal.
func terminal(w any) (*os.File, bool) {
	f, ok := w.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}
