package procfs

import (
	"os/exec"
	"testing"

	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestAQEMUTellsHowItWasStarted(t *testing.T) {
	for arg, want := range map[string]bool{"-blockdev": true, "-drive": false} {
		cmd := exec.Command("/bin/sh", "-c", "echo; read x", "qemu", arg)
		in, err := cmd.StdinPipe()
		recovertest.Must(t, err)
		out, err := cmd.StdoutPipe()
		recovertest.Must(t, err)
		recovertest.Must(t, cmd.Start())
		_, err = out.Read(make([]byte, 1)) // it has its own command line by now
		recovertest.Must(t, err)
		got, err := StartedWithBlockdev(cmd.Process.Pid)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", arg, got, err)
		}
		in.Close()
		cmd.Wait()
	}
}
