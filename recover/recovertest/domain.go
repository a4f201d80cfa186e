package recovertest

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/os-rescue/os-rescue/recover"
)

// errOff is what a fake says where libvirt says that a domain is not running.
var errOff = errors.New("domain is not running")

// FakeDomain is a domain of a FakeHypervisor.
type FakeDomain struct {
	recover.Domain
	agent    bool                             // the guest has an agent
	Frozen   bool                             // its file systems are
	Thawed   int                              // how often
	Counters map[string]recover.BlockCounters // by target
	QEMU     *Holder                          // nil when it is off
	logd     *Holder                          // nil when it is off, or has no console log
	// Defined is the persistent definition where it differs from what the QEMU has; nil
	// where it does not.
	Defined *recover.Definition
	// Lacking is what a start would lack.
	Lacking []string
	// Needs are files that a start needs beside the emulator.
	Needs []recover.NeededFile
	// Kept is state that a start finds again.
	Kept []recover.KeptState
	// secret is what only XML tells.
	secret string

	booted  bool                   // this QEMU's guest has run
	asked   int                    // writes that the guest makes when it runs next
	writes  int                    // that it has made: each has another content
	fds     map[string]int         // QEMU's descriptor of each disk, by target
	mirrors map[string]*fakeMirror // by target
	export  *fakeExport
}

// Write is the guest writing to its first disk: its counters go up, and no file changes.
func (d *FakeDomain) Write() { d.count("vda", 0, 512) }

func (d *FakeDomain) count(target string, off, size int64) {
	c := d.Counters[target]
	c.WriteRequests++
	c.WriteBytes += size
	c.HighestOffset = max(c.HighestOffset, uint64(off+size))
	d.Counters[target] = c
}

// Off ends a domain's QEMU, whoever wants it, and with it every job of it.
func (d *FakeDomain) Off() {
	d.endExport()
	d.QEMU.End()
	d.logd.End()
	d.QEMU, d.logd = nil, nil
	d.fds, d.mirrors, d.BlockJobs, d.booted = nil, nil, nil, false
	d.State, d.PauseReason, d.PID, d.Frozen, d.Crashed = recover.StateShutOff, recover.PauseNone, 0, false, false
	if d.Defined != nil {
		d.Disks, d.NVRAM, d.Defined = d.Defined.Disks, d.Defined.NVRAM, nil
	}
}

// Crash ends a domain's QEMU without a word.
func (d *FakeDomain) Crash() {
	d.Off()
	d.Crashed = true
}

// next is what the next start opens; nil where the domain shows it as its own.
func (d *FakeDomain) next() *recover.Definition {
	switch {
	case d.QEMU == nil || !d.Persistent:
		return nil
	case d.Defined != nil:
		return &recover.Definition{Disks: cloneDisks(d.Defined.Disks), NVRAM: d.Defined.NVRAM, Boot: d.Boot}
	default:
		return &recover.Definition{Disks: cloneDisks(d.Disks), NVRAM: d.NVRAM, Boot: d.Boot}
	}
}

func cloneDisks(disks []recover.Disk) []recover.Disk {
	cloned := slices.Clone(disks)
	for n := range cloned {
		cloned[n].Chain = slices.Clone(cloned[n].Chain)
	}
	return cloned
}

// start makes the domain's QEMU and log daemon. They fail when a file is missing.
func (d *FakeDomain) start(paused bool) error {
	var files, logs []recover.File
	d.fds = map[string]int{}
	d.Counters = map[string]recover.BlockCounters{}
	for _, f := range filesOf(d.Domain) {
		if f.Role == recover.RoleConsoleLog {
			logs = append(logs, f)
			continue
		}
		if f.Role == recover.RoleDisk {
			d.fds[f.Target] = firstFD + len(files)
			d.Counters[f.Target] = recover.BlockCounters{}
		}
		files = append(files, f)
	}
	var err error
	if d.QEMU, err = Hold("qemu", []string{"-uuid", d.UUID, "-blockdev", "{}"}, files, nil); err != nil {
		d.QEMU = nil
		return err
	}
	if len(logs) > 0 {
		if d.logd, err = Hold(logDaemon, nil, logs, nil); err != nil {
			d.Off()
			return err
		}
	}
	d.PID, d.Crashed = d.QEMU.pid(), false
	if paused {
		d.State, d.PauseReason = recover.StatePaused, recover.PauseUser
		return nil
	}
	return d.run()
}

// run lets the guest run: it boots, if this is its first moment, and makes the
// writes that it was asked for.
func (d *FakeDomain) run() error {
	d.State, d.PauseReason = recover.StateRunning, recover.PauseNone
	if !d.booted {
		d.booted = true
		for _, disk := range d.Disks {
			if _, file := d.fds[disk.Target]; file && !disk.ReadOnly {
				d.count(disk.Target, 4096-512, 512)
			}
		}
	}
	for ; d.asked > 0; d.asked-- {
		d.writes++
		for _, disk := range d.Disks {
			if disk.ReadOnly {
				continue
			}
			if err := d.write(disk.Target, guestOffset, slices.Repeat([]byte{byte(d.writes)}, guestBlock)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Where and how much the guest writes when FakeHypervisor.ask asks it to.
const guestOffset, guestBlock = 8 << 10, 4 << 10

// write is the guest writing to a disk, and to its mirror if it has one.
func (d *FakeDomain) write(target string, off int64, data []byte) error {
	fd, ok := d.fds[target]
	if !ok {
		return nil // not in a file
	}
	if err := writeAt(d.QEMU, fd, off, data); err != nil {
		return err
	}
	d.count(target, off, int64(len(data)))
	if m := d.mirrors[target]; m != nil && writeAt(d.QEMU, m.fd, off, data) != nil {
		return d.endMirror(target) // a mirror that fails never fails its guest
	}
	return nil
}

func writeAt(h *Holder, fd int, off int64, data []byte) error {
	f, err := h.file(fd, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(data, off)
	return err
}

// disk returns a disk by its target.
func (d *FakeDomain) disk(target string) (*recover.Disk, error) {
	n := slices.IndexFunc(d.Disks, func(disk recover.Disk) bool { return disk.Target == target })
	if n < 0 {
		return nil, fmt.Errorf("domain %s has no disk %s", d.Name, target)
	}
	return &d.Disks[n], nil
}

// look is the domain as the hypervisor shows it: nothing in it changes later.
func (d *FakeDomain) look() recover.Domain {
	shown := d.Domain
	shown.BlockJobs = maps.Clone(d.BlockJobs)
	shown.Disks, shown.Next = cloneDisks(d.Disks), d.next()
	for n := range shown.Disks {
		shown.Disks[n].ChainKnown = d.Disks[n].ChainKnown || d.QEMU != nil
	}
	return shown
}

// setJob notes the block job of a disk, none for "".
func (d *FakeDomain) setJob(target, kind string) {
	jobs := maps.Clone(d.BlockJobs)
	if jobs == nil {
		jobs = map[string]string{}
	}
	jobs[target] = kind
	if kind == "" {
		delete(jobs, target)
	}
	if len(jobs) == 0 {
		jobs = nil
	}
	d.BlockJobs = jobs
}

// definition is the XML of a fake domain: what makes it known again.
type definition struct {
	XMLName  xml.Name `xml:"domain"`
	UUID     string   `xml:"uuid"`
	Graphics string   `xml:"graphics,omitempty"` // FakeDomain.secret
	Agent    bool     `xml:"agent,omitempty"`
	Domain   string   `xml:"domain"` // in JSON
}

// text is the domain's definition: what is true of its QEMU alone is not in it.
func (d *FakeDomain) text() (string, error) {
	inactive := d.Domain
	inactive.State, inactive.PauseReason, inactive.PID = recover.StateShutOff, recover.PauseNone, 0
	inactive.Job, inactive.BlockJobs, inactive.Persistent = "", nil, true
	if next := d.next(); next != nil {
		inactive.Disks, inactive.NVRAM = next.Disks, next.NVRAM
	}
	data, err := json.Marshal(inactive)
	if err != nil {
		return "", err
	}
	text, err := xml.Marshal(definition{UUID: d.UUID, Graphics: d.secret, Agent: d.agent, Domain: string(data)})
	return string(text), err
}

// parseDefinition is the reverse of text.
func parseDefinition(text string) (*FakeDomain, error) {
	var def definition
	if err := xml.Unmarshal([]byte(text), &def); err != nil {
		return nil, fmt.Errorf("the definition of a domain: %w", err)
	}
	d := &FakeDomain{agent: def.Agent, secret: def.Graphics, Counters: map[string]recover.BlockCounters{}}
	if err := json.Unmarshal([]byte(def.Domain), &d.Domain); err != nil {
		return nil, fmt.Errorf("the definition of domain %s: %w", def.UUID, err)
	}
	return d, nil
}
