// Command bed brings the OpenStack bed up and down.
//
//	bed up                      brings it up, or starts what is not up
//	bed down [--purge]          stops it; --purge also removes all that it knows
//	bed status                  which services are up; exit code 1 unless all are
//	bed env [USER [PROJECT]]    prints the OS_* variables of a user
//	bed run [--purge] -- COMMAND...   runs a command with the bed up, and takes
//	                            the bed down afterwards if it was not up before
//
// BED_DIR says where its state is (/var/lib/os-rescue-bed).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"

	"github.com/os-rescue/os-rescue/test/openstack"
)

var errUsage = errors.New("usage: bed up | down [--purge] | status | env [USER [PROJECT]] | run [--purge] -- COMMAND")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:])
	stop()
	var ended commandEnded
	switch {
	case errors.As(err, &ended):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(max(1, ended.code))
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
	options := openstack.Options{Progress: os.Stderr}
	bed := openstack.Open(options)
	command, args := args[0], args[1:]
	switch {
	case command == "up" && len(args) == 0:
		_, err := openstack.Up(ctx, options)
		return err
	case command == "down" && len(args) == 0:
		return bed.Down(ctx)
	case command == "down" && slices.Equal(args, []string{"--purge"}):
		return bed.Purge(ctx)
	case command == "status" && len(args) == 0:
		return status(bed)
	case command == "env" && len(args) <= 2:
		return env(bed, args)
	case command == "run":
		return runWith(ctx, options, args)
	}
	return errUsage
}

func status(bed *openstack.Bed) error {
	up, err := bed.Status()
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
		fmt.Printf("%-16s%s\n", name, word)
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

// runWith leaves the bed as it found it.
func runWith(ctx context.Context, options openstack.Options, args []string) (err error) {
	end := (*openstack.Bed).Down
	if len(args) > 0 && args[0] == "--purge" {
		end, args = (*openstack.Bed).Purge, args[1:]
	}
	if len(args) < 2 || args[0] != "--" {
		return errUsage
	}
	bed := openstack.Open(options)
	if !bed.Running() {
		defer func() { err = errors.Join(err, end(bed, context.WithoutCancel(ctx))) }()
	}
	if _, err := openstack.Up(ctx, options); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, args[1], args[2:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return commandEnded{args[1], exit.ExitCode()}
	}
	return err
}

// commandEnded is how the command of bed run failed.
type commandEnded struct {
	name string
	code int
}

func (e commandEnded) Error() string { return fmt.Sprintf("bed run: %s: exit code %d", e.name, e.code) }
