package lab

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/os-rescue/os-rescue/test/systemd"
)

// MainWithSystemd is Main with a real systemd as process 1 of the lab: what package
// systemd installs there are services of the lab's host, which see its guests.
func MainWithSystemd(m *testing.M) {
	var code int
	var err error
	switch os.Getenv(stageVariable) {
	case stageInside:
		if err = insideLab(); err == nil {
			err = systemd.WaitReady()
		}
		if err == nil {
			systemd.Exit(m.Run())
		}
	case stageInit:
		err = becomeSystemd()
	default:
		code, err = outsideOfSystemd()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		code = 1
	}
	os.Exit(code)
}

func outsideOfSystemd() (int, error) {
	host, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return 0, err
	}
	return systemd.Outside(append(os.Environ(), stageVariable+"="+stageInit, hostVariable+"="+host))
}

// becomeSystemd is process 1 of the new namespaces.
func becomeSystemd() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("%s=%s is for the lab's own use", stageVariable, stageInit)
	}
	if err := prepareGround(context.Background(), nil); err != nil {
		return err
	}
	return systemd.Become(stageVariable + "=" + stageInside)
}
