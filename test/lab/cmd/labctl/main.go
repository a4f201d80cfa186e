// Command labctl runs a command inside a lab, and lets that command boot guests
// and ask them what they lost. It is for demonstrations and for trying things
// out by hand:
//
//	labctl run [-fs ext4|xfs|btrfs] -- COMMAND...   in a new lab that ends with it
//	labctl boot [-spec JSON]                        inside: prints the new guest's UUID and domain
//	labctl boots DOMAIN                             inside: what the guest said, as JSON
//	labctl send DOMAIN COMMAND                      inside: poweroff, reboot, write, quiet, verify
//	labctl wait DOMAIN boot|beat N                  inside: until that boot is ready or that beat was said
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/os-rescue/os-rescue/test/lab"
)

const socket = "/run/os-rescue-lab/labctl"

func main() {
	err := errors.New("usage: labctl run [-fs NAME] -- COMMAND... | boot [-spec JSON] | boots DOMAIN | send DOMAIN COMMAND | " +
		"wait DOMAIN boot|beat N")
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "run":
			lab.Enter()
			err = runInLab(os.Args[2:])
		case "boot", "boots", "send", "wait":
			err = ask(os.Args[1], os.Args[2:])
		}
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// runInLab starts a lab, runs the command and ends the lab.
func runInLab(args []string) (err error) {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	kind := flags.String("fs", string(lab.Ext4), "what /var/lib/nova is on: ext4, xfs or btrfs")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("labctl run: no command")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}

	s := &session{ctx: context.Background(), guests: map[string]*lab.Instance{}}
	defer s.end()
	return s.try(func() {
		s.lab = lab.New(s, lab.Options{FileSystem: lab.FileSystem(*kind)})
		var config net.ListenConfig
		listener, err := config.Listen(s.ctx, "unix", socket)
		if err != nil {
			s.Fatalf("labctl: %v", err)
		}
		go func() { _ = http.Serve(listener, s.handler()) }() // until the process ends

		cmd := exec.CommandContext(s.ctx, flags.Arg(0), flags.Args()[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(self)+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
		// Ctrl-C ends the command, and with it the lab.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGINT)
		if err := cmd.Run(); err != nil {
			panic(failure{err})
		}
	})
}

// ask gives a command to the labctl that runs the lab.
func ask(command string, args []string) error {
	query := url.Values{}
	switch {
	case command == "boot" && len(args) == 0:
		query.Set("spec", "{}")
	case command == "boot" && len(args) == 2 && args[0] == "-spec":
		query.Set("spec", args[1])
	case command == "boots" && len(args) == 1:
		query.Set("domain", args[0])
	case command == "send" && len(args) == 2:
		query.Set("domain", args[0])
		query.Set("command", args[1])
	case command == "wait" && len(args) == 3:
		query.Set("domain", args[0])
		query.Set("what", args[1])
		query.Set("number", args[2])
	default:
		return fmt.Errorf("labctl %s: wrong arguments", command)
	}
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://lab/"+command, strings.NewReader(query.Encode()))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("labctl %s works inside labctl run only: %w", command, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body) // the status is the error
		return errors.New(string(body))
	}
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

// handler answers ask.
func (s *session) handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(path string, answer func(r *http.Request, w io.Writer)) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if err := s.try(func() { answer(r, w) }); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		})
	}
	handle("/boot", func(r *http.Request, w io.Writer) {
		var spec lab.Spec
		if err := json.Unmarshal([]byte(r.FormValue("spec")), &spec); err != nil {
			s.Fatalf("labctl boot: the spec: %v", err)
		}
		guest := s.define(spec)
		guest.Start(s)
		guest.WaitBoot(s, 1)
		if _, err := fmt.Fprintln(w, guest.UUID, guest.Name); err != nil {
			s.Fatalf("labctl boot: %v", err)
		}
	})
	handle("/boots", func(r *http.Request, w io.Writer) {
		if err := json.NewEncoder(w).Encode(s.guest(r).Boots()); err != nil {
			s.Fatalf("labctl boots: %v", err)
		}
	})
	handle("/send", func(r *http.Request, w io.Writer) {
		s.guest(r).Send(s, r.FormValue("command"))
	})
	handle("/wait", func(r *http.Request, w io.Writer) {
		number, err := strconv.Atoi(r.FormValue("number"))
		switch what := r.FormValue("what"); {
		case err != nil:
			s.Fatalf("labctl wait: %v", err)
		case what == "boot":
			s.guest(r).WaitBoot(s, number)
		case what == "beat":
			s.guest(r).WaitBeat(s, number)
		default:
			s.Fatalf("labctl wait: %q is neither boot nor beat", what)
		}
	})
	return mux
}
