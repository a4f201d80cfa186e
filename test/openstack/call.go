package openstack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// The environment of a process for which the package runs the calling program again.
const (
	stageVariable = "OS_RESCUE_BED_STAGE" // what Begin is to do
	stageInit     = "init"                // be process 1 of the bed
	stageCall     = "call"                // do what callVariable says, inside
	stageExec     = "exec"                // become another program, inside
	callVariable  = "OS_RESCUE_BED_CALL"  // a call's arguments, as JSON
)

// errorFD is where a call's error is written to.
const errorFD = 3

// What is done inside for a caller outside. The others have a service's name.
const (
	callUp     = "up"
	callDown   = "down"
	callStatus = "status"
	callStart  = "start"
	callStop   = "stop"
)

// Begin is called first of all in main or TestMain by a program that brings a bed up
// or acts on one from outside: the package runs the program again, as process 1 of
// the bed and inside it. There Begin does not return.
func Begin() {
	stage := os.Getenv(stageVariable)
	if stage == "" {
		return
	}
	// Not for what is started here.
	err, code := os.Unsetenv(stageVariable), 1
	switch {
	case err != nil:
	case stage == stageExec:
		code, err = becomeCommand()
	case stage == stageInit:
		err = runInit()
	case stage == stageCall:
		err = answer()
	default:
		err = fmt.Errorf("openstack: %s is %q", stageVariable, stage)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(code)
	}
	os.Exit(0)
}

// call has something done inside, and returns what was written for the caller. What
// is said meanwhile goes to the bed's progress.
func call(ctx context.Context, b *Bed, args ...string) (string, error) {
	failed, theirs, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer failed.Close()
	text, err := json.Marshal(args)
	if err != nil {
		return "", err
	}
	var stdout bytes.Buffer
	err = b.machine.run(nil, func() *exec.Cmd {
		cmd := exec.CommandContext(ctx, "/proc/self/exe")
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = patience.Of(10 * time.Second)
		cmd.Env = b.machine.environment(stageCall, []string{callVariable + "=" + string(text)})
		cmd.Stdout, cmd.Stderr = &stdout, b.progress
		cmd.ExtraFiles = []*os.File{theirs}
		return cmd
	}, func(*os.Process, <-chan struct{}) {})
	theirs.Close()
	said, rerr := io.ReadAll(failed)
	if err != nil && len(said) > 0 {
		err = errors.New(string(said))
	}
	return stdout.String(), errors.Join(err, rerr)
}

// answer does what a call asks for.
func answer() error {
	// For whichever thread this is: all of them live as long as the process.
	if err := endWithParent(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	syscall.CloseOnExec(errorFD)
	var args []string
	err := json.Unmarshal([]byte(os.Getenv(callVariable)), &args)
	if err == nil {
		err = os.Unsetenv(callVariable)
	}
	if err == nil {
		err = perform(ctx, Open(Options{Progress: os.Stderr}), args)
	}
	if err != nil {
		_, werr := io.WriteString(os.NewFile(errorFD, "error"), err.Error())
		if werr != nil {
			return errors.Join(err, werr)
		}
		os.Exit(1) // the caller says it
	}
	return nil
}

// perform does one call inside.
func perform(ctx context.Context, b *Bed, args []string) error {
	if len(args) == 0 || !b.machine.inside() {
		return fmt.Errorf("openstack: %s=%s is for the bed's own use", stageVariable, stageCall)
	}
	switch name := args[0]; {
	case name == callUp:
		return b.up(ctx)
	case name == callDown:
		return b.stopAll(ctx)
	case name == callStatus:
		status, err := b.Status(ctx)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(status)
	case name == callStart && len(args) == 2:
		return b.Start(ctx, args[1])
	case name == callStop && len(args) == 2:
		return b.Stop(ctx, args[1])
	}
	return fmt.Errorf("openstack: no such call: %q", args)
}
