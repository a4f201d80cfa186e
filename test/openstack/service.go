package openstack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// service is one process of the bed, with a pid file and a log.
type service struct {
	name    string
	user    string // whose; root's when empty
	command []string
	env     []string
	// ready says whether it serves: nil when it does.
	ready func(ctx context.Context) error

	run, log string // the directories of the pid file and the log

	launched time.Time // when this Bed started it; zero when it was up
}

func (s *service) pidFile() string { return filepath.Join(s.run, s.name+".pid") }
func (s *service) logFile() string { return filepath.Join(s.log, s.name+".log") }

// process returns the service's process, and whether it is alive.
func (s *service) process() (process, bool, error) {
	p, err := readPID(s.pidFile())
	if errors.Is(err, fs.ErrNotExist) {
		return process{}, false, nil
	}
	if err != nil {
		return process{}, false, err
	}
	return p, p.alive(), nil
}

// start starts the service unless it is up, and returns when it serves.
func (s *service) start(ctx context.Context) error {
	p, alive, err := s.process()
	if err != nil {
		return err
	}
	if !alive {
		if p.PID != 0 {
			if err := p.stop(0); err != nil { // what a dead leader has left
				return err
			}
		}
		if p, err = s.launch(ctx); err != nil {
			return fmt.Errorf("openstack: start %s: %w", s.name, err)
		}
	}
	return s.await(ctx, p)
}

// launch starts the process in a session of its own, with nothing of the
// caller's environment.
func (s *service) launch(ctx context.Context) (process, error) {
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return process{}, err
	}
	defer log.Close()
	cmd, err := command(context.WithoutCancel(ctx), s.user, s.env, s.command...)
	if err != nil {
		return process{}, err
	}
	cmd.SysProcAttr.Setsid = true
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return process{}, err
	}
	seen, err := lookAt(cmd.Process.Pid)
	if err == nil {
		err = writePID(s.pidFile(), seen.process)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return process{}, err
	}
	s.launched = time.Now()
	go func() { _ = cmd.Wait() }() // its pid file says whose it was
	return seen.process, nil
}

// await waits until the service serves.
func (s *service) await(ctx context.Context, p process) error {
	if s.ready == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience.Of(awaitLimit))
	defer cancel()
	for {
		err := s.ready(ctx)
		switch {
		case err == nil:
			return nil
		case !p.alive():
			return fmt.Errorf("openstack: %s ended at its start; the end of %s:\n%s", s.name, s.logFile(), tail(s.logFile(), 15))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("openstack: %s does not serve (%w): %w; the end of %s:\n%s",
				s.name, ctx.Err(), err, s.logFile(), tail(s.logFile(), 15))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// stop ends the service and everything that it started in its session.
func (s *service) stop() error {
	p, _, err := s.process()
	if err != nil || p.PID == 0 {
		return err
	}
	if err := p.stop(patience.Of(20 * time.Second)); err != nil {
		return fmt.Errorf("%w (%s)", err, s.name)
	}
	return os.Remove(s.pidFile())
}

// command makes a command of a user's, root's when name is empty. Its
// environment is that of a service: env, and where programs and its home are.
func command(ctx context.Context, name string, env []string, args ...string) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	cmd.Dir = "/"
	home := "/root"
	if name != "" {
		u, err := user.Lookup(name)
		if err != nil {
			return nil, err
		}
		groups, err := u.GroupIds()
		if err != nil {
			return nil, err
		}
		credential := &syscall.Credential{}
		for _, set := range []struct {
			to   *uint32
			text string
		}{{&credential.Uid, u.Uid}, {&credential.Gid, u.Gid}} {
			n, err := strconv.ParseUint(set.text, 10, 32)
			if err != nil {
				return nil, err
			}
			*set.to = uint32(n)
		}
		for _, group := range groups {
			n, err := strconv.ParseUint(group, 10, 32)
			if err != nil {
				return nil, err
			}
			credential.Groups = append(credential.Groups, uint32(n))
		}
		cmd.SysProcAttr.Credential = credential
		home = u.HomeDir
	}
	cmd.Env = append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + home, "LANG=C.UTF-8",
	}, env...)
	return cmd, nil
}

// do runs a command to its end, and returns what it writes to its standard
// output. The error has what it said.
func do(ctx context.Context, name string, env []string, args ...string) (string, error) {
	cmd, err := command(ctx, name, env, args...)
	if err != nil {
		return "", err
	}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("openstack: %s: %w\n%s", strings.Join(args, " "), err, lastLines(stdout.String()+stderr.String(), 25))
	}
	return stdout.String(), nil
}

func tail(path string, lines int) string {
	body, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return lastLines(string(body), lines)
}

func lastLines(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
