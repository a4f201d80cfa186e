package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/os-rescue/os-rescue/test/lyingfs"
)

func main() {
	refuse := flag.Bool("refuse-direct", false, "refuse every open with O_DIRECT")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: lyingfs [-refuse-direct] MOUNTPOINT BACKING-DIRECTORY")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), flag.Arg(1), *refuse); err != nil {
		fmt.Fprintln(os.Stderr, "lyingfs:", err)
		os.Exit(1)
	}
}

func run(dir, backing string, refuse bool) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGINT, syscall.SIGTERM)
	server, err := lyingfs.Mount(dir, backing, lyingfs.Options{RefuseDirect: refuse})
	if err != nil {
		return err
	}
	gone := make(chan struct{})
	go func() {
		server.Wait()
		close(gone)
	}()
	fmt.Println("ready")
	for {
		select {
		case <-gone:
			return nil
		case s := <-signals:
			switch s {
			case syscall.SIGUSR1:
				server.RefuseDirect(true)
			case syscall.SIGUSR2:
				server.RefuseDirect(false)
			default:
				return server.Unmount()
			}
		}
	}
}
