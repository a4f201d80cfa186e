package hypervisor

import (
	"strings"
	"testing"
)

func TestADiskWhoseExportMayEndItsQEMUIsKnown(t *testing.T) {
	const virtio = `<target dev='vda' bus='virtio'/>`
	scsi := func(controller, driver string) string {
		return `<target dev='sda' bus='scsi'/><address type='drive' controller='` + controller + `' bus='0' target='0' unit='0'/></disk>` +
			`<controller type='sata' index='1'><driver iothread='1'/></controller>` +
			`<controller type='scsi' index='1' model='virtio-scsi'>` + driver + `</controller><disk><target dev='vdb'/>`
	}
	for name, c := range map[string]struct{ disk, says string }{
		"like Nova's":        {`<driver name='qemu' type='qcow2' cache='none'/>` + virtio, ""},
		"an IOThread":        {`<driver name='qemu' iothread='1'/>` + virtio, "has an IOThread"},
		"the first IOThread": {`<driver name='qemu' iothread='0'/>` + virtio, "has an IOThread"},
		"queues of IOThreads": {`<driver><iothreads><iothread id='1'><queue id='0'/></iothread></iothreads></driver>` + virtio,
			"has an IOThread"},
		"a controller's":       {scsi("1", `<driver iothread='2'/>`), "scsi controller that has an IOThread"},
		"a controller's many":  {scsi("1", `<driver><iothreads><iothread id='1'/></iothreads></driver>`), "scsi controller that has an IOThread"},
		"another controller's": {scsi("0", `<driver iothread='2'/>`), ""},
		"no controller's":      {scsi("1", `<driver queues='2'/>`), ""},
		"throttled":            {virtio + `<iotune><total_iops_sec>100</total_iops_sec></iotune>`, "is throttled"},
		"a throttle group's":   {virtio + `<throttlefilters><throttlefilter group='g'/></throttlefilters>`, "is throttled"},
	} {
		d, _, err := parseDomain(`<domain><devices><disk type='file' device='disk'><source file='/d'/>` + c.disk + `</disk></devices></domain>`)
		if err != nil {
			t.Fatal(name, err)
		}
		if got := d.Disks[0].Unexportable; (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s: %q", name, got)
		}
		if len(d.Disks) > 1 && d.Disks[1].Unexportable != "" {
			t.Errorf("%s: its second disk: %q", name, d.Disks[1].Unexportable)
		}
	}
}

func TestADiskThatIsCopiedOnReadIsNotMirrored(t *testing.T) {
	for value, says := range map[string]string{"on": "copied on read", "off": ""} {
		d, _, err := parseDomain(`<domain><devices><disk><driver copy_on_read='` + value + `'/></disk></devices></domain>`)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Disks[0].Unmirrorable; (got == "") != (says == "") || !strings.Contains(got, says) {
			t.Errorf("%s: %q", value, got)
		}
	}
}
