package task

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

// report collects how one instance fares in a run. It is safe for concurrent use:
// files that instances share are copied by whichever comes first.
type report struct {
	mu   sync.Mutex
	data recover.InstanceReport
}

func newReport(plan recover.InstancePlan) *report {
	return &report{data: recover.InstanceReport{
		UUID:   plan.UUID,
		Domain: plan.Domain,
		Name:   plan.Name,
		Steps:  []recover.StepReport{},
	}}
}

// Notef adds a note for the operator to the report.
func (r *report) Notef(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data.Notes = append(r.data.Notes, recover.InWords(fmt.Sprintf(format, args...)))
}

// AddBytes reports that n more bytes were read from a source.
func (r *report) AddBytes(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data.Bytes += n
}

func (r *report) addStep(name string, began time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data.Steps = append(r.data.Steps, recover.StepReport{Name: name, Started: began.UTC(), Seconds: time.Since(began).Seconds()})
}

// lastStep returns the name of the step that ended last; "" when none has.
func (r *report) lastStep() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.data.Steps) == 0 {
		return ""
	}
	return r.data.Steps[len(r.data.Steps)-1].Name
}

// SetMode reports how the instance is rescued.
func (r *report) SetMode(mode recover.Mode) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data.Mode = mode
}

// SetVerified reports how the new disks of a live rescue were proven.
func (r *report) SetVerified(how recover.Verify) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data.Verified = how
}

// SetPause reports how long the guest was suspended.
func (r *report) SetPause(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data.PauseSeconds = d.Seconds()
}

// SetDowntime reports how long the guest did not run.
func (r *report) SetDowntime(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data.DowntimeSeconds = d.Seconds()
}

// End completes the report and returns it; err is nil when the instance ended well.
func (r *report) End(outcome recover.Outcome, err *recover.InstanceError) recover.InstanceReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data.Outcome = outcome
	if err != nil {
		r.data.Error = err.Message()
	}
	return r.data
}

// Notes returns the notes so far.
func (r *report) Notes() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.data.Notes)
}
