package recover

// Subject names the instance that progress is about.
type Subject struct {
	UUID   string
	Domain string
	Name   string // Nova's display name; may be empty
}

// Progress is told how a run gets on. Implementations must be safe for
// concurrent use and must return at once: they are called between a guest's
// suspend and its resume.
type Progress interface {
	// Begin is called once, before the first instance, with the number of
	// instances to work on and the bytes that will be copied.
	Begin(instances int, bytes int64)
	// Step is called when an instance enters a step ("suspend", "copy", ...).
	Step(who Subject, step string)
	// File is called when work on a file begins: phase is "copy", "compare" or
	// "check", total the bytes to go through. The returned FileProgress is told
	// of every byte, and of the end.
	File(who Subject, path, phase string, total int64) FileProgress
	// Done is called when an instance has ended.
	Done(who Subject, report InstanceReport)
	// End is called once, after the last instance or after an interruption.
	End()
}

// FileProgress follows one file through one phase.
type FileProgress interface {
	Add(bytes int64)
	Done()
}

// NoProgress is a Progress that shows nothing.
type NoProgress struct{}

type noFile struct{}

// Begin does nothing.
func (NoProgress) Begin(int, int64) {}

// Step does nothing.
func (NoProgress) Step(Subject, string) {}

// File returns a FileProgress that does nothing.
func (NoProgress) File(Subject, string, string, int64) FileProgress { return noFile{} }

// Done does nothing.
func (NoProgress) Done(Subject, InstanceReport) {}

// End does nothing.
func (NoProgress) End() {}

func (noFile) Add(int64) {}
func (noFile) Done()     {}
