package recover

import (
	"os/exec"
	"testing"
)

func TestAQEMUTellsHowItWasStarted(t *testing.T) {
	for arg, want := range map[string]bool{"-blockdev": true, "-drive": false} {
		cmd := exec.Command("/bin/sh", "-c", "echo; read x", "qemu", arg)
		in, err := cmd.StdinPipe()
		must(t, err)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		_, err = out.Read(make([]byte, 1)) // it has its own command line by now
		must(t, err)
		got, err := startedWithBlockdev(cmd.Process.Pid)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", arg, got, err)
		}
		in.Close()
		cmd.Wait()
	}
}
