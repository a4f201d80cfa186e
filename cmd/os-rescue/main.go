// Command os-rescue brings back the disks of running OpenStack instances whose
// files were deleted under them.
//
// It is the command line only: flags, configuration, confirmation, tables and
// progress. What it does is package recover's.
package main

import (
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/config"
)

func main() {
	// With a handler in place, writing to a pager that was closed returns an
	// error; without, it would end the process, and leave a guest paused.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)

	os.Exit(run(system{
		args:     os.Args[1:],
		env:      config.Environ(os.Environ()),
		stdin:    os.Stdin,
		stdout:   os.Stdout,
		stderr:   os.Stderr,
		isRoot:   os.Geteuid() == 0,
		hostname: config.Hostname(),
		signals:  stopSignals(),
		connect:  connect,
	}))
}

// system is what the program meets: in tests, not the real one.
type system struct {
	args           []string
	env            map[string]string
	stdin          io.Reader
	stdout, stderr io.Writer
	isRoot         bool
	hostname       string
	signals        <-chan os.Signal
	connect        connector
	interactive    bool // tests say so; else stdin is looked at
}

// terminal returns w as a file if it is a terminal.
func terminal(w any) (*os.File, bool) {
	f, ok := w.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}
