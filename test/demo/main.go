package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
)

func main() {
	lab.Enter()
	s := newShow()
	s.play(incident)
	os.Exit(s.exitCode())
}

// incident is the whole play, in six scenes.
func incident(s *show) {
	s.title("os-rescue: an incident, and the way back")
	s.say("Real libvirt and QEMU, in namespaces of their own: this machine is not touched.")
	s.say("Getting a compute node and a guest ready; the first time takes a minute longer ...")
	l := lab.New(s, lab.Options{})
	s.useBinary(l.Binary(s))
	guest := l.Boot(s, lab.Spec{ConfigDrive: true})
	guest.WaitBeat(s, 3)

	s.scene("A guest at work")
	s.command("virsh list")
	first := guest.Boots()[0]
	s.guest("boot %d, payload %s, beat %d", first.Number, brief(first.SHA256), guest.LastBeat())

	s.scene("The accident")
	s.command("rm -rf " + lab.InstancesDir + "/*")
	s.command("virsh list")
	beat := guest.LastBeat()
	guest.WaitBeat(s, beat+2)
	s.guest("beat %d: it runs on, and nobody notices", guest.LastBeat())
	s.fails("ls " + guest.Disk)
	s.say("Stopped or rebooted now, it would find no disk to start from, and its data would be gone.")

	s.scene("What is lost, and what can be done")
	s.command("os-rescue scan")
	s.want(l, guest, recover.VerdictRecoverable)

	s.scene("What a rescue would do")
	s.command("os-rescue --all --offline --dry-run")

	s.scene("The rescue")
	said := guest.LastBeat()
	s.command("os-rescue --all --offline --yes")

	s.scene("The guest is back")
	second := guest.WaitBoot(s, 2)
	guest.Verify(s)
	s.guest("boot %d, payload %s, the last beat on its disk is %d", second.Number, brief(second.SHA256), second.LastBeat)
	switch {
	case second.Payload != "ok" || second.SHA256 != first.SHA256:
		s.Fatalf("the payload is %s: %s", second.Payload, second.SHA256)
	case second.LastBeat < said || second.Gaps > 0:
		s.Fatalf("beat %d was said before the rescue; %d are on disk, %d are missing", said, second.LastBeat, second.Gaps)
	}
	s.command("find " + lab.InstancesDir + ` -type f -printf '%M %u:%g %P\n' | sort -k 3`)
	s.command("os-rescue scan")
	s.want(l, guest, recover.VerdictIntact)

	s.title(fmt.Sprintf("Rescued: one reboot, the same payload, all %d beats. Nothing was lost.", second.LastBeat))
}

// brief is enough of a digest for a person to compare.
func brief(sha256 string) string { return "sha256 " + sha256[:min(16, len(sha256))] + "..." }

// useBinary makes the built os-rescue the one that commands find.
func (s *show) useBinary(path string) {
	if err := os.Setenv("PATH", filepath.Dir(path)+":/usr/sbin:/sbin:"+os.Getenv("PATH")); err != nil {
		s.Fatalf("%v", err)
	}
}

// command shows a command and its output, and fails if the command does.
func (s *show) command(line string) {
	if err := s.run(line); err != nil {
		s.Fatalf("%s: %v", line, err)
	}
}

// fails shows a command, and fails unless the command does.
func (s *show) fails(line string) {
	if err := s.run(line); !errors.As(err, new(*exec.ExitError)) {
		s.Fatalf("%s: it should have failed, and ended with: %v", line, err)
	}
}

func (s *show) run(line string) error {
	s.prompt(line)
	// The output goes straight to where ours goes: on a terminal, with colours
	// and progress bars.
	cmd := exec.CommandContext(s.Context(), "sh", "-c", line)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	return cmd.Run()
}

// want fails unless the scan gives the guest this verdict.
func (s *show) want(l *lab.Lab, guest *lab.Instance, verdict recover.Verdict) {
	r := l.Run(s, nil, "scan", "--output", "json")
	var report recover.Report
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil {
		s.Fatalf("scan: exit code %d: %v: %s", r.Code, err, strings.TrimSpace(r.Stderr))
	}
	for _, i := range report.Instances {
		if i.UUID == guest.UUID && i.Verdict == verdict {
			return
		}
	}
	s.Fatalf("scan does not call %s %s", guest.Name, verdict)
}
