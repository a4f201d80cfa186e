package recover

import (
	"strings"
	"testing"
)

func TestOnlyWhatAnActionTouchesStopsIt(t *testing.T) {
	file := func(path string) Image { return Image{Source: SourceFile, Path: path} }
	disk := Disk{Target: "vda", Chain: []Image{file("/i/u/disk"), file("/i/_base/b")}}
	plain := Domain{State: StateRunning, Disks: []Disk{disk}}
	with := func(change func(d *Domain)) Domain {
		d := plain
		d.Disks = append([]Disk{}, plain.Disks...)
		change(&d)
		return d
	}
	second := func(change func(*Disk)) Domain {
		return with(func(d *Domain) {
			more := Disk{Target: "vdb", Chain: []Image{file("/i/u/second")}}
			change(&more)
			d.Disks = append(d.Disks, more)
		})
	}
	shareable := second(func(d *Disk) { d.Unusual = []string{"shareable"} })
	transient := second(func(d *Disk) {
		d.Transient, d.LostAtEnd = true, []string{"its writes end with its QEMU"}
	})
	network := second(func(d *Disk) { d.Chain[0].Source, d.Unusual = SourceNetwork, []string{"x"} })
	migrated := with(func(d *Domain) { d.Job = "migration out" })
	dumped := with(func(d *Domain) { d.Job = "dump" })
	unknown := with(func(d *Domain) { d.Job = "unknown" })
	committed := with(func(d *Domain) { d.BlockJobs = map[string]string{"vda": "active-commit"} })
	full := with(func(d *Domain) { d.State, d.PauseReason = StatePaused, PauseIOError })
	arriving := with(func(d *Domain) { d.State, d.PauseReason, d.Job = StatePaused, PauseMigration, "migration in" })
	halved := with(func(d *Domain) { d.State, d.PauseReason = StatePaused, PausePostcopy })
	restored := with(func(d *Domain) { d.Name, d.State, d.PauseReason = "i-1", StatePaused, PauseMigration })
	crashed := with(func(d *Domain) { d.State, d.PID = StateCrashed, 1 })
	watched := with(func(d *Domain) { d.Name, d.State, d.PauseReason = "i-1", StatePaused, PauseOther })
	asleep := with(func(d *Domain) { d.Name, d.State = "i-1", StatePMSuspended })
	crashed.Name = "i-1"
	between := with(func(d *Domain) { d.State = StateOther })

	for name, c := range map[string]struct {
		domain Domain
		action Action
		paths  []string
		says   string // "" for nothing
	}{
		"a plain disk":                                        {plain, ActionReboot, []string{"/i/u/disk"}, ""},
		"a shareable disk that is moved back":                 {shareable, ActionMoveBack, []string{"/i/u/second"}, ""},
		"a disk that is moved back under a commit":            {committed, ActionMoveBack, []string{"/i/u/disk"}, "vda"},
		"a disk that is linked back in a crashed guest":       {crashed, ActionLinkBack, []string{"/i/u/disk"}, ""},
		"a whole shareable disk, and a reboot":                {shareable, ActionReboot, []string{"/i/u/disk"}, ""},
		"a whole shareable disk, and a live rescue":           {shareable, ActionLive, []string{"/i/u/disk"}, ""},
		"a lost shareable disk":                               {shareable, ActionReboot, []string{"/i/u/disk", "/i/u/second"}, "shareable"},
		"a lost shareable disk, live":                         {shareable, ActionLive, []string{"/i/u/second"}, "shareable"},
		"a backup that would copy a shareable disk":           {shareable, ActionBackup, []string{"/i/u/second"}, "shareable"},
		"a whole transient disk, which a destroy would empty": {transient, ActionReboot, []string{"/i/u/disk"}, "its writes end with its QEMU"},
		"a whole transient disk, and a live rescue":           {transient, ActionLive, []string{"/i/u/disk"}, ""},
		"a backup of a transient disk":                        {transient, ActionBackup, []string{"/i/u/disk"}, "transient"},
		"a transient disk whose own file is put back":         {transient, ActionPutBack, []string{"/i/u/second"}, ""},
		"a whole transient disk, and a put-back":              {transient, ActionPutBack, []string{"/i/u/console.log"}, ""},
		"a migration, and a reboot":                           {migrated, ActionReboot, []string{"/i/u/disk"}, "migration out"},
		"a migration, and a put-back":                         {migrated, ActionPutBack, []string{"/i/u/console.log"}, "migration"},
		"a dump, and a reboot":                                {dumped, ActionReboot, []string{"/i/u/disk"}, "dump"},
		"a dump, and a backup":                                {dumped, ActionBackup, []string{"/i/u/disk"}, "dump"},
		"a dump, and a put-back":                              {dumped, ActionPutBack, []string{"/i/_base/b"}, ""},
		"a job that os-rescue does not know, and a put-back":  {unknown, ActionPutBack, []string{"/i/u/console.log"}, "unknown"},
		"a commit, and the backing file that it writes":       {committed, ActionPutBack, []string{"/i/_base/b"}, "vda active-commit"},
		"a commit, and the console log":                       {committed, ActionPutBack, []string{"/i/u/console.log"}, ""},
		"a commit, and a live rescue":                         {committed, ActionLive, []string{"/i/u/disk"}, "vda active-commit"},
		"paused for an I/O error, and a reboot":               {full, ActionReboot, []string{"/i/u/disk"}, "I/O error"},
		"paused for an I/O error, and a put-back":             {full, ActionPutBack, []string{"/i/_base/b"}, ""},
		"paused because it arrives, and a put-back":           {arriving, ActionPutBack, []string{"/i/_base/b"}, "migrated"},
		"paused because it arrives, and a reboot":             {arriving, ActionReboot, []string{"/i/u/disk"}, "migration in"},
		"paused with memory elsewhere, and a put-back":        {halved, ActionPutBack, []string{"/i/_base/b"}, "migrated"},
		"paused with memory elsewhere, and a live rescue":     {halved, ActionLive, []string{"/i/u/disk"}, "migrated"},
		"restored paused, and a put-back":                     {restored, ActionPutBack, []string{"/i/_base/b"}, ""},
		"restored paused, and a disk that is moved back":      {restored, ActionMoveBack, []string{"/i/u/disk"}, ""},
		"restored paused, and a reboot":                       {restored, ActionReboot, []string{"/i/u/disk"}, "virsh resume i-1"},
		"restored paused, and a live rescue":                  {restored, ActionLive, []string{"/i/u/disk"}, "virsh suspend i-1"},
		"restored paused, and a backup":                       {restored, ActionBackup, []string{"/i/u/disk"}, "virsh resume i-1"},
		"crashed and kept, and a put-back":                    {crashed, ActionPutBack, []string{"/i/_base/b"}, ""},
		"crashed and kept, and a reboot":                      {crashed, ActionReboot, []string{"/i/u/disk"}, "crashed"},
		"crashed and kept, and a backup":                      {crashed, ActionBackup, []string{"/i/u/disk"}, "virsh resume i-1"},
		"paused by a watchdog, and a reboot":                  {watched, ActionReboot, []string{"/i/u/disk"}, "virsh domstate --reason i-1"},
		"paused by a watchdog, and a live rescue":             {watched, ActionLive, []string{"/i/u/disk"}, "virsh resume i-1"},
		"paused by a watchdog, and a backup":                  {watched, ActionBackup, []string{"/i/u/disk"}, "virsh suspend i-1"},
		"paused by a watchdog, and a put-back":                {watched, ActionPutBack, []string{"/i/_base/b"}, ""},
		"asleep, and a reboot":                                {asleep, ActionReboot, []string{"/i/u/disk"}, "virsh dompmwakeup i-1"},
		"asleep, and a put-back":                              {asleep, ActionPutBack, []string{"/i/_base/b"}, ""},
		"between two states, and a reboot":                    {between, ActionReboot, []string{"/i/u/disk"}, "between two states"},
		"a path of a network disk is no file's":               {network, ActionReboot, []string{"/i/u/second"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := HandsOff(c.domain, c.action, c.paths)
			if !strings.Contains(got, c.says) || (c.says == "") != (got == "") {
				t.Errorf("%q; want %q", got, c.says)
			}
		})
	}
}
