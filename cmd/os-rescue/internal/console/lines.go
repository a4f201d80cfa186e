package console

import (
	"fmt"
	"io"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/printable"
)

// Lines is a recover.Progress without a terminal: one line at the beginning of a run,
// and one when an instance has ended, so that a mail from cron stays short.
type Lines struct {
	w io.Writer // must not block: a Stderr
}

// NewLines returns a Progress that writes to w, which must not block.
func NewLines(w io.Writer) *Lines { return &Lines{w: w} }

// Begin writes how much there is to do.
func (l *Lines) Begin(instances int, bytes int64) {
	noun := "instances"
	if instances == 1 {
		noun = "instance"
	}
	if bytes == 0 { // a reboot copies nothing
		l.line("%d %s", instances, noun)
		return
	}
	l.line("%d %s, %s to copy", instances, noun, Size(bytes))
}

// Step writes nothing.
func (l *Lines) Step(recover.Subject, string) {}

// File returns a FileProgress that writes nothing.
func (l *Lines) File(recover.Subject, string, string, int64) recover.FileProgress { return silent{} }

// Done writes how the instance ended.
func (l *Lines) Done(who recover.Subject, r recover.InstanceReport) { l.line("%s", ending(who, r)) }

// End writes nothing.
func (l *Lines) End() {}

func (l *Lines) line(format string, args ...any) {
	_, _ = io.WriteString(l.w, string(printable.Sprintf(format, args...))+"\n")
}

// ending says in one line how an instance ended.
func ending(who recover.Subject, r recover.InstanceReport) string {
	outcome := string(r.Outcome)
	if r.Outcome == recover.OutcomeRescued {
		outcome = "done" // rescued, backed up or restored
	}
	line := fmt.Sprintf("%s: %s", subject(who), outcome)
	if r.Bytes > 0 {
		line += ", " + Size(r.Bytes)
	}
	if r.Mode == recover.ModeLive && r.PauseSeconds > 0 {
		line += ", suspended for " + Seconds(r.PauseSeconds)
		if r.Verified == recover.VerifyStructure {
			line += ", NOT compared"
		}
	} else if r.DowntimeSeconds > 0 {
		line += ", down for " + Seconds(r.DowntimeSeconds)
	} else if r.PauseSeconds > 0 {
		line += ", paused for " + Seconds(r.PauseSeconds)
	}
	return printable.Line(line)
}

type silent struct{}

func (silent) Add(int64) {}
func (silent) Done()     {}

func subject(who recover.Subject) string {
	if who.Name == "" {
		return who.Domain
	}
	return who.Domain + " (" + who.Name + ")"
}
