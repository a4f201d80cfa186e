package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// crowdScript forks the processes from one, which makes them cheap: each opens
// its files, says so with one byte, and sleeps.
const crowdScript = `
my ($file, $processes, $files) = @ARGV;
for (1..$processes) {
	my $pid = fork // die "fork: $!";
	next if $pid;
	my @open;
	open($open[$_], "<", "$file$_") or die "$file$_: $!" for 1..$files;
	syswrite STDOUT, ".";
	sleep while 1;
}
sleep while 1;
`

// startCrowd starts processes with that many open files each, and returns when
// all have them open.
func startCrowd(ctx context.Context, dir string, processes, files int) (end func(), err error) {
	for n := range files {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("open%d", n+1)), nil, 0o600); err != nil {
			return nil, err
		}
	}
	cmd := exec.CommandContext(ctx, "perl", "-e", crowdScript, filepath.Join(dir, "open"), fmt.Sprint(processes), fmt.Sprint(files))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // to end them together
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("a crowd of processes: %w", err)
	}
	end = func() {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		_ = cmd.Wait()
	}
	if _, err := io.ReadFull(out, make([]byte, processes)); err != nil {
		end()
		return nil, fmt.Errorf("a crowd of processes: %w", err)
	}
	return end, nil
}
