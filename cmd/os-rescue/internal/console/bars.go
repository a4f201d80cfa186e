package console

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/printable"
)

const redraw = 100 * time.Millisecond

// Bars is a recover.Progress for a terminal: a line with the current step of each
// instance, a bar per file, and a total with the time left. The methods that the
// engine calls only write to memory. A goroutine draws, so that a stopped terminal
// stops nothing else.
type Bars struct {
	stderr   *Stderr
	terminal io.Writer // an *os.File: to anything else mpb draws nothing by itself

	total, done atomic.Int64
	mu          sync.Mutex
	instances   map[string]*instanceLine
	files       []*fileBar
	stop        chan struct{}
	stopped     chan struct{}
}

// instanceLine is an instance in progress.
type instanceLine struct {
	who  recover.Subject
	step atomic.Value // string
	bar  *mpb.Bar     // used only by the drawing goroutine
	over atomic.Bool
}

// fileBar is a file in progress.
type fileBar struct {
	title   string
	total   int64
	current atomic.Int64
	sum     *atomic.Int64 // the bytes of the run; nil if this phase does not count
	summed  atomic.Int64  // the bytes already added to sum
	over    atomic.Bool
	bar     *mpb.Bar // used only by the drawing goroutine
}

// NewBars returns a Progress that draws on terminal. While it draws, text that is
// written to stderr appears above the bars.
func NewBars(stderr *Stderr, terminal *os.File) *Bars {
	return &Bars{stderr: stderr, terminal: terminal, instances: make(map[string]*instanceLine)}
}

// Begin starts drawing.
func (b *Bars) Begin(_ int, bytes int64) {
	b.total.Store(bytes)
	b.stop, b.stopped = make(chan struct{}), make(chan struct{})
	go b.draw(b.stop, b.stopped)
}

// Step shows the current step of an instance.
func (b *Bars) Step(who recover.Subject, step string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	line := b.instances[who.UUID]
	if line == nil {
		line = &instanceLine{who: who}
		b.instances[who.UUID] = line
	}
	line.step.Store(step)
}

// File shows a bar for one phase of a file. Copied bytes count towards the total.
func (b *Bars) File(who recover.Subject, path, phase string, total int64) recover.FileProgress {
	f := &fileBar{title: string(printable.Sprintf("%s %s %s", subject(who), phase, filepath.Base(path))), total: total}
	if phase == "copy" || phase == "mirror" {
		f.sum = &b.done
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.files = append(b.files, f)
	return f
}

// Done removes an instance and writes how it ended.
func (b *Bars) Done(who recover.Subject, r recover.InstanceReport) {
	_, _ = io.WriteString(b.stderr, ending(who, r)+"\n")
	b.mu.Lock()
	defer b.mu.Unlock()
	if line := b.instances[who.UUID]; line != nil {
		line.over.Store(true)
	}
}

// End clears the bars. It waits for the terminal for at most a second.
func (b *Bars) End() {
	if b.stop == nil {
		return
	}
	close(b.stop)
	b.stop = nil
	select {
	case <-b.stopped:
	case <-time.After(time.Second):
	}
}

// Add counts bytes. A mirror may copy more bytes than foreseen, because its guest
// writes meanwhile. Those do not count towards the total of the run.
func (f *fileBar) Add(bytes int64) {
	f.current.Add(bytes)
	if f.sum == nil {
		return
	}
	for {
		before := f.summed.Load()
		after := min(before+bytes, f.total)
		if after <= before {
			return
		}
		if f.summed.CompareAndSwap(before, after) {
			f.sum.Add(after - before)
			return
		}
	}
}

// Done removes the bar.
func (f *fileBar) Done() { f.over.Store(true) }

// draw is the only goroutine that calls mpb, which waits for its terminal.
func (b *Bars) draw(stop, stopped chan struct{}) {
	defer close(stopped)
	p := mpb.New(mpb.WithOutput(b.terminal), mpb.WithRefreshRate(redraw))
	defer b.stderr.Redirect(above{p, b.terminal})()
	var total *mpb.Bar
	if b.total.Load() > 0 { // a reboot copies nothing
		total = p.New(b.total.Load(), barStyle(), mpb.BarPriority(1<<30),
			mpb.PrependDecorators(decor.Name("copied", decor.WC{W: 7, C: decor.DindentRight})),
			mpb.AppendDecorators(
				decor.CountersKibiByte("% .1f of % .1f "),
				decor.OnComplete(decor.AverageETA(decor.ET_STYLE_GO), "0s"), decor.Name(" left")))
	}
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-tick.C:
		case <-stop:
			running = false
		}
		b.update(p)
		if total != nil {
			// One byte short of the end, or mpb would end the bar as complete.
			total.SetCurrent(min(b.done.Load(), b.total.Load()-1))
		}
	}
	b.mu.Lock()
	for _, f := range b.files {
		f.over.Store(true)
	}
	for _, line := range b.instances {
		line.over.Store(true)
	}
	b.mu.Unlock()
	b.update(p)
	if total != nil {
		total.Abort(true)
	}
	p.Wait()
}

// update tells mpb what has changed.
func (b *Bars) update(p *mpb.Progress) {
	b.mu.Lock()
	var files []*fileBar
	var lines []*instanceLine
	files = append(files, b.files...)
	for uuid, line := range b.instances {
		lines = append(lines, line)
		if line.over.Load() {
			delete(b.instances, uuid)
		}
	}
	active := b.files[:0]
	for _, f := range b.files {
		if !f.over.Load() {
			active = append(active, f)
		}
	}
	b.files = active
	b.mu.Unlock()

	for _, line := range lines {
		line.draw(p)
	}
	for _, f := range files {
		f.draw(p)
	}
}

func (l *instanceLine) draw(p *mpb.Progress) {
	over := l.over.Load()
	if l.bar == nil && !over {
		l.bar = p.New(0, mpb.NopStyle(), mpb.PrependDecorators(decor.Any(func(decor.Statistics) string {
			step, _ := l.step.Load().(string)
			return string(printable.Sprintf("%s: %s", subject(l.who), step))
		})))
	}
	if l.bar != nil && over {
		l.bar.Abort(true)
	}
}

func (f *fileBar) draw(p *mpb.Progress) {
	over := f.over.Load()
	if f.bar == nil && !over {
		// Without a total at first, mpb lets the total grow and never ends the bar as
		// complete. Done removes it.
		f.bar = p.New(0, barStyle(),
			mpb.PrependDecorators(decor.Name("  "+f.title+" ")),
			mpb.AppendDecorators(
				decor.CountersKibiByte("% .1f of % .1f "),
				decor.AverageSpeed(decor.SizeB1024(0), "% .1f "),
				decor.AverageETA(decor.ET_STYLE_GO)))
	}
	if f.bar == nil {
		return
	}
	current := f.current.Load()
	f.bar.SetTotal(max(f.total, current), false)
	f.bar.SetCurrent(current)
	if over {
		f.bar.Abort(true)
	}
}

func barStyle() mpb.BarStyleComposer {
	return mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]")
}

// above writes above the bars while they are drawn, and to the terminal afterwards.
type above struct {
	bars     *mpb.Progress
	terminal io.Writer
}

func (a above) Write(p []byte) (int, error) {
	n, err := a.bars.Write(p)
	if errors.Is(err, mpb.ErrDone) {
		return a.terminal.Write(p)
	}
	return n, err
}
