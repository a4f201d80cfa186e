package hypervisor

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"libvirt.org/go/libvirtxml"

	"github.com/os-rescue/os-rescue/recover"
)

// Bounds on a domain's XML. A chain costs one level per backing file, and the depth
// limit protects the stack of a recursive parser.
const (
	maxXMLBytes = 16 << 20
	maxXMLDepth = 1000
)

// parseDomain reads a domain's XML: all of recover.Domain except state, persistence,
// pid, jobs without a mirror, and saved memory. live is true for the XML of an active
// domain. The error wraps ErrXML.
// The format is libvirt's: https://libvirt.org/formatdomain.html
func parseDomain(doc string) (d recover.Domain, live bool, err error) {
	def, err := definition(doc)
	if err != nil {
		return recover.Domain{}, false, err
	}
	d = recover.Domain{UUID: strings.ToLower(strings.TrimSpace(def.UUID)), Name: def.Name}
	if d.Nova, err = novaMetadata(doc); err != nil {
		return recover.Domain{}, false, fmt.Errorf("%w: %w", ErrXML, err)
	}
	if def.Devices != nil {
		for i := range def.Devices.Disks {
			disk := &def.Devices.Disks[i]
			one := diskOf(disk)
			one.Unexportable, one.Unmirrorable = unexportable(disk, def.Devices), unmirrorable(disk)
			d.Disks = append(d.Disks, one)
			if disk.Mirror != nil && disk.Target != nil {
				if d.BlockJobs == nil {
					d.BlockJobs = map[string]string{}
				}
				kind := disk.Mirror.Job
				if kind == "" { // libvirt < 1.2.7 knew no other
					kind = "copy"
				}
				d.BlockJobs[disk.Target.Dev] = kind
			}
		}
		d.ConsoleLogs = consoleLogs(def.Devices)
	}
	d.NVRAM, d.NVRAMFormat = nvram(def.OS)
	if def.OS != nil {
		d.Boot = recover.BootFiles(strings.TrimSpace(def.OS.Kernel), strings.TrimSpace(def.OS.Initrd), strings.TrimSpace(def.OS.DTB))
	}
	d.Losses = losses(def)
	for _, l := range def.SecLabel {
		switch l.Model {
		case "selinux":
			d.ImageLabel = l.ImageLabel
		case "dac":
			d.DACLabel = l.ImageLabel
			if d.DACLabel == "" {
				d.DACLabel = l.Label
			}
		}
	}
	return d, def.ID != nil, nil
}

// definition parses a domain's XML, which need not be trusted. The error wraps ErrXML.
func definition(doc string) (*libvirtxml.Domain, error) {
	if err := bounded(doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrXML, err)
	}
	var def libvirtxml.Domain
	if err := def.Unmarshal(doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrXML, err)
	}
	return &def, nil
}

// bounded refuses a document that is too large, too deep or not XML.
func bounded(doc string) error {
	if len(doc) > maxXMLBytes {
		return fmt.Errorf("%d bytes, more than %d", len(doc), maxXMLBytes)
	}
	dec := xml.NewDecoder(strings.NewReader(doc))
	for depth := 0; ; {
		tok, err := dec.RawToken()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch tok.(type) {
		case xml.StartElement:
			if depth++; depth > maxXMLDepth {
				return fmt.Errorf("nested deeper than %d", maxXMLDepth)
			}
		case xml.EndElement:
			depth--
		}
	}
}

// diskOf reads one <disk> with its chain.
func diskOf(disk *libvirtxml.DomainDisk) recover.Disk {
	d := recover.Disk{Device: disk.Device}
	if d.Device == "" {
		d.Device = "disk"
	}
	if disk.Target != nil {
		d.Target = disk.Target.Dev
	}
	d.ReadOnly = disk.ReadOnly != nil || d.Device == "cdrom"
	// "requisite" makes a start fail, too (formatdomain.html, startupPolicy).
	d.Optional = disk.Source != nil && disk.Source.StartupPolicy == "optional"
	d.Requisite = disk.Source != nil && disk.Source.StartupPolicy == "requisite"

	format := ""
	if disk.Driver != nil {
		format = disk.Driver.Type
	}
	top := imageOf(disk.Source, format)
	d.Chain = []recover.Image{top}
	d.DACLabel = dacLabel(disk.Source)
	addSource(&d, disk.Source)
	if disk.Transient != nil {
		d.Transient = true
		d.LostAtEnd = once(d.LostAtEnd, "it is transient, and all that was written to it ends with its QEMU")
	}
	if disk.Shareable != nil && top.Source == recover.SourceFile {
		d.Unusual = once(d.Unusual, "shareable: another domain may write it too")
	}
	d.Encrypted = d.Encrypted || disk.Encryption != nil
	if top.Source == recover.SourceNone {
		d.ChainKnown = true
		return d
	}
	last := top
	next := disk.BackingStore
	for ; next != nil && !ends(next); next = next.BackingStore {
		format := ""
		if next.Format != nil {
			format = next.Format.Type
		}
		last = imageOf(next.Source, format)
		d.Chain = append(d.Chain, last)
		addSource(&d, next.Source)
	}
	// A raw image can't name a backing file, so it ends its chain.
	d.ChainKnown = next != nil || last.Format == "raw"
	return d
}

// ends recognizes the empty <backingStore/> that terminates a chain. libvirtxml gives
// it a Source in which nothing is set.
func ends(b *libvirtxml.DomainDiskBackingStore) bool {
	return b.Source == nil || b.Format == nil && sourceKind(b.Source) == recover.SourceNone
}

func imageOf(s *libvirtxml.DomainDiskSource, format string) recover.Image {
	img := recover.Image{Source: sourceKind(s), Format: format}
	switch img.Source {
	case recover.SourceFile:
		// libvirt shows a relative backing file as it found it: UUID/../_base/SHA1. One file has one path.
		img.Path = filepath.Clean(s.File.File)
	case recover.SourceBlock:
		img.Path = s.Block.Dev
	}
	if img.Source == recover.SourceNone {
		img.Format = ""
	}
	return img
}

// sourceKind returns the kind of storage of a source. In libvirtxml the pointer that is
// set shows the type.
func sourceKind(s *libvirtxml.DomainDiskSource) recover.DiskSource {
	switch {
	case s == nil:
		return recover.SourceNone
	case s.File != nil:
		if s.File.File == "" {
			return recover.SourceNone
		}
		return recover.SourceFile
	case s.Block != nil:
		if s.Block.Dev == "" {
			return recover.SourceNone
		}
		return recover.SourceBlock
	case s.Network != nil:
		return recover.SourceNetwork
	case s.Dir != nil, s.Volume != nil, s.NVME != nil, s.VHostUser != nil, s.VHostVDPA != nil:
		return recover.SourceOther
	default:
		return recover.SourceNone
	}
}

// addSource notes what makes a source of a disk more than a plain file.
func addSource(d *recover.Disk, s *libvirtxml.DomainDiskSource) {
	if s == nil {
		return
	}
	unusual := func(feature string) { d.Unusual = once(d.Unusual, feature) }
	lostAtEnd := func(why string) { d.LostAtEnd = once(d.LostAtEnd, why) }
	if s.Slices != nil && len(s.Slices.Slices) > 0 {
		unusual("slices: the disk is a part of the file")
	}
	if s.DataStore != nil {
		unusual("external data store")
	}
	if s.File != nil && s.File.FDGroup != "" {
		unusual("opened by a descriptor passed to libvirt")
		lostAtEnd("its file was opened by a descriptor that a program passed to libvirt, and a start needs that again")
	}
	if s.Volume != nil {
		lostAtEnd("it is a volume of a storage pool, and libvirt does not say whether its file is still there")
	}
	if s.Dir != nil {
		lostAtEnd("it shows a directory, and os-rescue does not look whether that is still there")
	}
	d.Encrypted = d.Encrypted || s.Encryption != nil && sourceKind(s) == recover.SourceFile
}

// once appends a text to a list that does not have it yet.
func once(list []string, text string) []string {
	if slices.Contains(list, text) {
		return list
	}
	return append(list, text)
}

// dacLabel is the source's own DAC label, if it has one.
func dacLabel(s *libvirtxml.DomainDiskSource) string {
	var labels []libvirtxml.DomainDeviceSecLabel
	switch {
	case s == nil:
	case s.File != nil:
		labels = s.File.SecLabel
	case s.Block != nil:
		labels = s.Block.SecLabel
	}
	for _, l := range labels {
		if l.Model == "dac" {
			return l.Label
		}
	}
	return ""
}

// consoleLogs lists the files that the domain's character devices write, each once,
// because libvirt shows the first serial port as a console too.
func consoleLogs(devices *libvirtxml.DomainDeviceList) []string {
	var logs []string
	add := func(log *libvirtxml.DomainChardevLog, source *libvirtxml.DomainChardevSource) {
		var paths []string
		if log != nil {
			paths = append(paths, log.File)
		}
		if source != nil && source.File != nil {
			paths = append(paths, source.File.Path)
		}
		for _, p := range paths {
			if filepath.IsAbs(p) && !slices.Contains(logs, p) {
				logs = append(logs, p)
			}
		}
	}
	for _, s := range devices.Serials {
		add(s.Log, s.Source)
	}
	for _, c := range devices.Consoles {
		add(c.Log, c.Source)
	}
	for _, p := range devices.Parallels {
		add(p.Log, p.Source)
	}
	for _, c := range devices.Channels {
		add(c.Log, c.Source)
	}
	return logs
}

// nvram is the path and format of the UEFI variable store, if it is a file.
func nvram(os *libvirtxml.DomainOS) (path, format string) {
	if os == nil || os.NVRam == nil {
		return "", ""
	}
	path = strings.TrimSpace(os.NVRam.NVRam)
	if s := os.NVRam.Source; s != nil {
		path = ""
		if s.File != nil {
			path = s.File.File
		}
	}
	if !filepath.IsAbs(path) {
		return "", ""
	}
	format = os.NVRam.Format
	if format == "" {
		format = "raw"
	}
	return path, format
}

// losses names the state that Nova's hard reboot discards: it undefines the domain,
// with its NVRAM and TPM state (nova/virt/libvirt/driver.py, _hard_reboot).
func losses(def *libvirtxml.Domain) []string {
	var found []string
	if os := def.OS; os != nil {
		l := os.Loader
		flash := l != nil && l.Type == "pflash" && l.Stateless != "yes"
		if os.NVRam != nil || flash {
			found = append(found, recover.LossNVRAM)
		}
	}
	if def.Devices == nil {
		return found
	}
	for _, t := range def.Devices.TPMs {
		if b := t.Backend; b != nil && (b.Emulator != nil || b.External != nil) {
			found = append(found, recover.LossVTPM)
			break
		}
	}
	for _, m := range def.Devices.Memorydevs {
		if m.Model == "nvdimm" || m.Model == "virtio-pmem" {
			found = append(found, recover.LossVPMEM)
			break
		}
	}
	return found
}
