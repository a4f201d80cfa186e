package lab

import (
	"encoding/json"
	"strings"
	"text/template"
)

// disk is one <disk> of a domain.
type disk struct {
	Path   string
	Format string
	Target string
	Bus    string
	Device string // disk or cdrom
	Block  bool
}

// domainXML returns what Nova's libvirt driver would define, as far as files
// are concerned (nova/virt/libvirt/config.py), and the lab's own channel. The
// CPU has RDRAND, or the guest's kernel would take a second to gather entropy.
func (i *Instance) domainXML(disks []disk) (string, error) {
	var out strings.Builder
	err := domainTemplate.Execute(&out, map[string]any{"I": i, "S": i.spec, "Disks": disks})
	return out.String(), err
}

// diskInfo is Nova's disk.info: the format of each of its image files.
func diskInfo(disks []disk) ([]byte, error) {
	formats := map[string]string{}
	for _, d := range disks {
		if !d.Block {
			formats[d.Path] = d.Format
		}
	}
	return json.Marshal(formats)
}

var domainTemplate = template.Must(template.New("domain").Parse(`<domain type='qemu'>
  <name>{{.I.Name}}</name>
  <uuid>{{.I.UUID}}</uuid>
{{- if not .S.NoMetadata}}
  <metadata>
    <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
      <nova:package version="26.2.1"/>
      <nova:name>{{html .I.DisplayName}}</nova:name>
      <nova:creationTime>2026-01-02 03:04:05</nova:creationTime>
      <nova:flavor name="{{html .S.Flavor}}">
        <nova:memory>{{.S.MemoryMiB}}</nova:memory>
        <nova:disk>1</nova:disk>
        <nova:swap>0</nova:swap>
        <nova:ephemeral>0</nova:ephemeral>
        <nova:vcpus>1</nova:vcpus>
      </nova:flavor>
      <nova:owner>
        <nova:user uuid="6ac1ea0bb1d94a3fa4e6c1dbc8ff2d4f">operator</nova:user>
        <nova:project uuid="{{.I.ProjectID}}">{{html .S.ProjectName}}</nova:project>
      </nova:owner>
      <nova:root type="image" uuid="70a599e0-31e7-49b7-b260-868f441e862b"/>
    </nova:instance>
  </metadata>
{{- end}}
  <memory unit='MiB'>{{.S.MemoryMiB}}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='{{.S.Machine}}'>hvm</type>
    <boot dev='hd'/>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode='custom' match='exact'>
    <model fallback='allow'>qemu64</model>
    <feature policy='require' name='rdrand'/>
  </cpu>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
{{- range .Disks}}
    <disk type='{{if .Block}}block{{else}}file{{end}}' device='{{.Device}}'>
      <driver name='qemu' type='{{.Format}}' cache='{{$.S.Cache}}'{{if $.S.IO}} io='{{$.S.IO}}'{{end}}/>
      <source {{if .Block}}dev{{else}}file{{end}}='{{.Path}}'/>
      <target dev='{{.Target}}' bus='{{.Bus}}'/>
{{- if eq .Device "cdrom"}}
      <readonly/>
{{- end}}
    </disk>
{{- end}}
{{- if .S.SerialFile}}
    <serial type='file'>
      <source path='{{.I.ConsoleLog}}'/>
      <target port='0'/>
    </serial>
    <serial type='pty'><target port='1'/></serial>
{{- else}}
    <serial type='pty'>
      <log file='{{.I.ConsoleLog}}' append='{{if .S.LogAppend}}on{{else}}off{{end}}'/>
      <target port='0'/>
    </serial>
{{- end}}
{{- if not .S.NoAgent}}
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
{{- end}}
    <channel type='unix'>
      <source mode='bind' path='{{.I.Socket}}'/>
      <target type='virtio' name='lab.0'/>
    </channel>
    <video><model type='none'/></video>
    <memballoon model='virtio'><stats period='10'/></memballoon>
{{.S.DevicesXML}}
  </devices>
</domain>
`))
