// Command bed is an OpenStack with a machine of its own: processes, network, file
// systems, accounts.
//
//	bed up [FLAGS]              brings it up, or starts what is not up
//	bed down [--purge]          stops it; --purge also removes all that it knows
//	bed status                  which services are up; exit code 1 unless all are
//	bed start SERVICE...        starts single services, named as bed status does
//	bed stop SERVICE...         stops single services
//	bed exec [--] [COMMAND...]  runs a command, or a shell, on its machine
//	bed run [--purge] [FLAGS] -- COMMAND...   runs a command there with the bed up,
//	                            and takes it down afterwards if it was not up before
//	bed env [USER [PROJECT]]    prints the OS_* variables of a user
//
// FLAGS are what the bed is to be like. It stays so until it is purged:
//
//	--fake-computes N           N more compute services, with Nova's fake driver
//	--nova-conf FILE            the lines of FILE at the end of nova.conf
//
// BED_DIR says where its state is (/var/lib/os-rescue-bed): each directory is another
// bed, and any number can be up at a time. LAB_PATIENCE is a factor for how long to
// wait for anything.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/os-rescue/os-rescue/test/openstack"
)

var errUsage = errors.New(`usage: bed up [--fake-computes N] [--nova-conf FILE] | down [--purge] | status |
	start SERVICE... | stop SERVICE... | exec [--] [COMMAND...] |
	run [--purge] [--fake-computes N] [--nova-conf FILE] -- COMMAND... | env [USER [PROJECT]]`)

func main() {
	openstack.Begin()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:])
	stop()
	var ended commandEnded
	switch {
	case errors.As(err, &ended):
		if err != error(ended) { //nolint:errorlint // it says whether there is more to say
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(ended.code)
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	command, args := args[0], args[1:]
	options, purge, args, err := parse(command, args)
	if err != nil {
		return err
	}
	bed := openstack.Open(options)
	switch {
	case command == "up" && len(args) == 0:
		_, err := openstack.Up(ctx, options)
		return err
	case command == "down" && len(args) == 0 && purge:
		return bed.Purge(ctx)
	case command == "down" && len(args) == 0:
		return bed.Down(ctx)
	case command == "status" && len(args) == 0:
		return status(ctx, bed)
	case command == "start" && len(args) > 0:
		return each(ctx, bed.Start, args)
	case command == "stop" && len(args) > 0:
		return each(ctx, bed.Stop, args)
	case command == "exec":
		if len(args) == 0 {
			args = []string{shell()}
		}
		return execute(ctx, bed, args)
	case command == "run" && len(args) > 0:
		return runWith(ctx, options, purge, args)
	case command == "env" && len(args) <= 2:
		return env(bed, args)
	}
	return errUsage
}

// parse reads the flags that a command has.
func parse(command string, args []string) (options openstack.Options, purge bool, rest []string, err error) {
	options.Progress = os.Stderr
	flags := flag.NewFlagSet("bed "+command, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	novaConf := ""
	if command == "up" || command == "run" {
		flags.IntVar(&options.FakeComputes, "fake-computes", 0, "")
		flags.StringVar(&novaConf, "nova-conf", "", "")
	}
	if command == "down" || command == "run" {
		flags.BoolVar(&purge, "purge", false, "")
	}
	if err := flags.Parse(args); err != nil {
		return options, false, nil, fmt.Errorf("bed %s: %w\n%w", command, err, errUsage)
	}
	if novaConf != "" {
		text, err := os.ReadFile(novaConf)
		if err != nil {
			return options, false, nil, err
		}
		options.NovaConf = string(text)
	}
	options.Bound = command == "run"
	return options, purge, flags.Args(), nil
}

// each does something with services, one after the other.
func each(ctx context.Context, do func(context.Context, string) error, names []string) error {
	for _, name := range names {
		if err := do(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func status(ctx context.Context, bed *openstack.Bed) error {
	up, err := bed.Status(ctx)
	if err != nil {
		return err
	}
	missing := 0
	for _, name := range bed.Services() {
		word := "up"
		if !up[name] {
			word = "down"
			missing++
		}
		fmt.Printf("%-24s%s\n", name, word)
	}
	if missing > 0 {
		return fmt.Errorf("%d services: %w", missing, openstack.ErrDown)
	}
	return nil
}

// env prints what a shell evaluates.
func env(bed *openstack.Bed, args []string) error {
	user := "admin"
	if len(args) > 0 {
		user = args[0]
	}
	project := user
	if user == openstack.Rescuer {
		project = openstack.RescueProject
	}
	if len(args) > 1 {
		project = args[1]
	}
	for _, variable := range bed.Env(user, project) {
		fmt.Println("export " + variable)
	}
	fmt.Println("export OS_COMPUTE_API_VERSION=2.92") // for the openstack command: --nic none needs 2.37
	return nil
}

// shell is the caller's, if it is there.
func shell() string {
	path, err := exec.LookPath(cmp.Or(os.Getenv("SHELL"), "/bin/bash"))
	if err != nil {
		return "/bin/sh"
	}
	return path
}

// execute runs a command inside. A signal is the command's to act on.
func execute(ctx context.Context, bed *openstack.Bed, args []string) error {
	code, err := bed.Exec(context.WithoutCancel(ctx), openstack.Command{Args: args})
	if err == nil && code != 0 {
		err = commandEnded{args[0], code}
	}
	return err
}

// runWith leaves the bed as it found it.
func runWith(ctx context.Context, options openstack.Options, purge bool, args []string) (err error) {
	bed := openstack.Open(options)
	wasUp := bed.IsUp()
	if bed, err = openstack.Up(ctx, options); err != nil {
		if purge && !wasUp {
			err = errors.Join(err, openstack.Open(options).Purge(context.WithoutCancel(ctx)))
		}
		return err
	}
	if !wasUp {
		end := bed.Down
		if purge {
			end = bed.Purge
		}
		defer func() {
			if failed := end(context.WithoutCancel(ctx)); failed != nil {
				err = errors.Join(err, failed)
			}
		}()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return execute(ctx, bed, args)
}

// commandEnded is how the command of exec or run failed. It has said so itself.
type commandEnded struct {
	name string
	code int
}

func (e commandEnded) Error() string { return fmt.Sprintf("%s: exit code %d", e.name, e.code) }
