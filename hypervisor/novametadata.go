package hypervisor

import (
	"encoding/xml"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// novaNamespace begins the XML namespace of Nova's metadata; 1.0 and 1.1 follow
// it (NOVA_NS in nova/virt/libvirt/config.py). The elements read here are the
// same in both.
const novaNamespace = "http://openstack.org/xmlns/libvirt/nova/"

type novaDocument struct {
	XMLName   xml.Name       `xml:"domain"`
	Instances []novaInstance `xml:"metadata>instance"`
}

type novaInstance struct {
	XMLName xml.Name
	Name    string `xml:"name"`
	Flavor  struct {
		Name string `xml:"name,attr"`
	} `xml:"flavor"`
	Owner struct {
		User    novaOwner `xml:"user"`
		Project novaOwner `xml:"project"`
	} `xml:"owner"`
}

type novaOwner struct {
	UUID string `xml:"uuid,attr"`
	Name string `xml:",chardata"`
}

// novaMetadata reads Nova's part of a domain's <metadata>, nil when there is none
// (LibvirtConfigGuestMetaNovaInstance in nova/virt/libvirt/config.py).
func novaMetadata(doc string) (*recover.NovaMetadata, error) {
	var d novaDocument
	if err := xml.Unmarshal([]byte(doc), &d); err != nil {
		return nil, err
	}
	for _, i := range d.Instances {
		if !strings.HasPrefix(i.XMLName.Space, novaNamespace) {
			continue
		}
		return &recover.NovaMetadata{
			Name:        strings.TrimSpace(i.Name),
			Flavor:      i.Flavor.Name,
			ProjectID:   i.Owner.Project.UUID,
			ProjectName: strings.TrimSpace(i.Owner.Project.Name),
			UserID:      i.Owner.User.UUID,
		}, nil
	}
	return nil, nil
}
