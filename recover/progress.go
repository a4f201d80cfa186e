package recover

// Subject names the instance that progress is about.
type Subject struct {
	UUID   string // of the instance
	Domain string // the name of its libvirt domain
	Name   string // Nova's display name; may be empty
}

// Progress receives the progress of a run. Its methods must be safe for concurrent use
// and must return at once: some calls come while a guest is suspended.
type Progress interface {
	// Begin is called once, before the first instance, with the number of instances that
	// the run works on and the bytes that it will copy.
	Begin(instances int, bytes int64)
	// Step is called when an instance enters a step ("suspend", "copy", ...).
	Step(who Subject, step string)
	// File is called when work on a file begins. phase is "copy", "compare" or "check";
	// total is the number of bytes to process. The run reports every byte, and the end,
	// to the FileProgress that File returns.
	File(who Subject, path, phase string, total int64) FileProgress
	// Done is called when the work on an instance has ended.
	Done(who Subject, report InstanceReport)
	// End is called once, after the last instance or after an interruption.
	End()
}

// FileProgress follows one file through one phase.
type FileProgress interface {
	// Add is called when so many more bytes have been processed.
	Add(bytes int64)
	// Done is called when the phase has ended.
	Done()
}

// NoProgress is a Progress that does nothing.
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
