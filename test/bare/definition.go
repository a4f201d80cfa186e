package bare

import (
	"strings"
	"text/template"
)

// Disk is a disk of a bare guest.
type Disk struct {
	Target   string // vda
	Path     string
	Format   string // raw or qcow2
	Readonly bool   // a cdrom
}

// Definition is what a bare guest's domain is made from.
type Definition struct {
	Name, UUID string
	Dir        string // Nova's for the instance
	Disks      []Disk
	Monitor    string // path of a QMP socket beside libvirt's own; empty for none
}

// XML returns the domain as Nova's libvirt driver would define it, as far as files are
// concerned.
func (d Definition) XML() (string, error) {
	t, err := template.New("domain").Parse(domainTemplate)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	err = t.Execute(&text, d)
	return text.String(), err
}

const domainTemplate = `<domain type='qemu'>
  <name>{{.Name}}</name>
  <uuid>{{.UUID}}</uuid>
  <metadata>
    <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
      <nova:name>{{.Name}}</nova:name>
      <nova:owner>
        <nova:user uuid="6ac1ea0bb1d94a3fa4e6c1dbc8ff2d4f">operator</nova:user>
        <nova:project uuid="c1d2e3f4a5b64798a0b1c2d3e4f50617">production</nova:project>
      </nova:owner>
    </nova:instance>
  </metadata>
  <memory unit='MiB'>32</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact'><model fallback='allow'>qemu64</model></cpu>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <devices>
{{- range .Disks}}
    <disk type='file' device='{{if .Readonly}}cdrom{{else}}disk{{end}}'>
      <driver name='qemu' type='{{.Format}}' cache='none'{{if not .Readonly}} discard='unmap'{{end}}/>
      <source file='{{.Path}}'/>
      <target dev='{{.Target}}' bus='{{if .Readonly}}ide{{else}}virtio{{end}}'/>
{{- if .Readonly}}
      <readonly/>
{{- end}}
    </disk>
{{- end}}
    <serial type='pty'><log file='{{.Dir}}/console.log' append='off'/><target port='0'/></serial>
    <video><model type='none'/></video>
    <memballoon model='none'/>
  </devices>
{{- with .Monitor}}
  <commandline xmlns='http://libvirt.org/schemas/domain/qemu/1.0'>
    <arg value='-qmp'/>
    <arg value='unix:{{.}},server=on,wait=off'/>
  </commandline>
{{- end}}
</domain>
`
