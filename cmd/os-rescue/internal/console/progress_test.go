package console

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
)

var _, _ recover.Progress = (*Lines)(nil), (*Bars)(nil)

func subjects() (recover.Subject, recover.InstanceReport) {
	return recover.Subject{UUID: "u", Domain: "instance-0000002a", Name: "web\x1b[2J"},
		recover.InstanceReport{Outcome: recover.OutcomeRescued, Bytes: 5 << 20, DowntimeSeconds: 14.2, PauseSeconds: 3}
}

func play(p recover.Progress) {
	who, report := subjects()
	p.Begin(1, 5<<20)
	p.Step(who, "suspend")
	p.Step(who, "copy")
	f := p.File(who, "/i/u/disk", "copy", 5<<20)
	f.Add(5 << 20)
	f.Done()
	p.File(who, "/i/u/disk", "compare", 5<<20).Done()
	p.Step(who, "start")
	p.Done(who, report)
	p.End()
}

func TestPlainProgressIsTwoLinesForOneInstance(t *testing.T) {
	var out bytes.Buffer
	play(NewLines(&out))
	want := "1 instance, 5.0 MiB to copy\n" +
		"instance-0000002a (web?[2J): done, 5.0 MiB, down for 14 s\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

// pty opens a terminal and its other side.
func pty(t *testing.T) (terminal, other *os.File) {
	t.Helper()
	other, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	if err := unix.IoctlSetPointerInt(int(other.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(other.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(other.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 120}); err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	return terminal, other
}

// until reads the terminal's other side until it has shown every text.
func until(t *testing.T, seen *strings.Builder, other *os.File, texts ...string) {
	t.Helper()
	buf := make([]byte, 4096)
	for {
		all := true
		for _, text := range texts {
			all = all && strings.Contains(seen.String(), text)
		}
		if all {
			return
		}
		n, err := other.Read(buf)
		if err != nil {
			t.Fatalf("the terminal ended before it showed %q: %v\n%q", texts, err, seen.String())
		}
		seen.Write(buf[:n])
	}
}

func TestATerminalShowsBarsAndLogsAboveThem(t *testing.T) {
	terminal, other := pty(t)
	stderr := NewStderr(terminal)
	defer stderr.Close()
	b := NewBars(stderr, terminal)
	who, report := subjects()
	b.Begin(1, 8<<20)
	b.Step(who, "copy")
	f := b.File(who, "/i/u/disk", "copy", 8<<20)
	f.Add(2 << 20)
	var seen strings.Builder
	until(t, &seen, other, "instance-0000002a (web?[2J): copy", "copy disk", "2.0 MiB of 8.0 MiB", "copied", "left")
	_, _ = stderr.Write([]byte("a log line\n"))
	until(t, &seen, other, "a log line")
	f.Add(6 << 20)
	f.Done()
	b.Step(who, "start")
	until(t, &seen, other, "instance-0000002a (web?[2J): start")
	b.Done(who, report)
	until(t, &seen, other, "done, 5.0 MiB, down for 14 s")
	go b.End()
	<-b.stopped
}

func TestAMirrorCountsAsCopiedAndItsBarStaysWhileItsGuestWrites(t *testing.T) {
	terminal, other := pty(t)
	stderr := NewStderr(terminal)
	defer stderr.Close()
	b := NewBars(stderr, terminal)
	who, report := subjects()
	b.Begin(1, 8<<20)
	b.Step(who, "ready")
	f := b.File(who, "/i/u/disk", "mirror", 4<<20)
	f.Add(3 << 20)
	f.Add(3 << 20) // two of them are new since
	var seen strings.Builder
	until(t, &seen, other, "mirror disk", "6.0 MiB of 6.0 MiB", "4.0 MiB of 8.0 MiB")
	f.Add(1 << 20)
	until(t, &seen, other, "7.0 MiB of 7.0 MiB")
	f.Done()
	c := b.File(who, "/i/u/disk", "compare", 4<<20)
	c.Add(1 << 20)
	until(t, &seen, other, "compare disk", "1.0 MiB of 4.0 MiB")
	if got := b.done.Load(); got != 4<<20 {
		t.Errorf("%d bytes count as copied", got)
	}
	report.Mode, report.PauseSeconds, report.DowntimeSeconds = recover.ModeLive, 0.0441, 0.0441
	b.Done(who, report)
	until(t, &seen, other, "done, 5.0 MiB, suspended for 44 ms")
	go b.End()
	<-b.stopped
}

func TestALiveRescueThatWasNotComparedSaysSoInItsOneLine(t *testing.T) {
	who, report := subjects()
	report.Mode, report.PauseSeconds, report.DowntimeSeconds = recover.ModeLive, 0.0441, 0.0441
	for verified, want := range map[recover.Verify]string{
		recover.VerifyRunning:   "done, 5.0 MiB, suspended for 44 ms",
		recover.VerifyFull:      "done, 5.0 MiB, suspended for 44 ms",
		recover.VerifyStructure: "done, 5.0 MiB, suspended for 44 ms, NOT compared",
	} {
		report.Verified = verified
		if got := ending(who, report); got != "instance-0000002a (web?[2J): "+want {
			t.Errorf("%s: %q", verified, got)
		}
	}
}

func TestProgressOfARebootMentionsNoCopies(t *testing.T) {
	who, report := subjects()
	report.Bytes = 0
	var out bytes.Buffer
	lines := NewLines(&out)
	lines.Begin(1, 0)
	lines.Done(who, report)
	if want := "1 instance\ninstance-0000002a (web?[2J): done, down for 14 s\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}

	terminal, other := pty(t)
	stderr := NewStderr(terminal)
	defer stderr.Close()
	b := NewBars(stderr, terminal)
	b.Begin(1, 0)
	b.Step(who, "reboot")
	var seen strings.Builder
	until(t, &seen, other, "instance-0000002a (web?[2J): reboot")
	b.Done(who, report)
	until(t, &seen, other, "done, down for 14 s")
	go b.End()
	<-b.stopped
	if strings.Contains(seen.String(), "copied") {
		t.Errorf("%q", seen.String())
	}
}

func TestAStoppedTerminalMakesNobodyWait(t *testing.T) {
	terminal, _ := pty(t) // whose other side nobody reads
	stderr := NewStderr(terminal)
	_, _ = stderr.Write(bytes.Repeat([]byte("x"), 1<<20)) // fills the terminal's buffer for good
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := NewBars(stderr, terminal)
		who, report := subjects()
		b.Begin(1, 8<<20)
		for range 10000 {
			b.Step(who, "copy")
			f := b.File(who, "/i/u/disk", "copy", 1)
			f.Add(1)
			f.Done()
		}
		b.Done(who, report)
		b.End()
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the run waits for a terminal that takes nothing")
	}
}

func TestSeconds(t *testing.T) {
	for s, want := range map[float64]string{
		0: "0.0 s", 0.0002: "1 ms", 0.0441: "44 ms", 0.44: "440 ms",
		0.9996: "1.0 s", 1.44: "1.4 s", 9.4: "9.4 s", 14.4: "14 s",
		59.6: "1 min 0 s", 200: "3 min 20 s", 7300: "2 h 1 min",
	} {
		if got := Seconds(s); got != want {
			t.Errorf("Seconds(%v) = %q, want %q", s, got, want)
		}
	}
}
