package openstack

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/google/uuid"
	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/endpoints"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/projects"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/roles"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/services"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/users"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/imagedata"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/pagination"

	"github.com/os-rescue/os-rescue/test/lab"
)

// The users of the bed. Each one's password is its name.
const (
	// adminUser may everything; its project has the same name.
	adminUser = "admin"
	// Rescuer is the user that os-rescue is run as: an administrator whose only
	// project, of the name RescueProject, has no instances.
	Rescuer       = "rescuer"
	RescueProject = "rescue"
	// LeastRescuer has a role in that project which may nothing until
	// LeastPrivilege is called.
	LeastRescuer = "least"
	leastRole    = "instance_rescuer"
	// Guard is the user that the guard signs in as, with a role that may nothing
	// until then either.
	Guard     = "guard"
	guardRole = "instance_guard"
)

// The flavors, by ID and name.
const (
	FlavorTiny  = "tiny"  // a disk
	FlavorFull  = "full"  // a disk, an ephemeral disk and swap
	FlavorLarge = "large" // a disk, and more memory: what a tiny one is resized to
)

// guestMemory is the memory of a guest, in MiB.
const guestMemory = 128

// Projects are those with instances. Each has a member of the same name, whose
// password is that name too.
func Projects() []string { return []string{"demo", "other", "third"} }

// grant gives a user a role in a project; all three are made when they are not
// there.
type grant struct{ user, project, role string }

// grants are everybody's but what keystone-manage bootstrap makes: admin's own.
func grants() []grant {
	all := []grant{
		{serviceUser, serviceProject, "admin"},
		{Rescuer, RescueProject, "admin"},
		{LeastRescuer, RescueProject, leastRole},
		{Guard, RescueProject, guardRole},
	}
	for _, name := range Projects() {
		all = append(all, grant{name, name, "member"}, grant{adminUser, name, "admin"})
	}
	return all
}

// makeCatalog makes the projects, users and endpoints.
func makeCatalog(ctx context.Context) error {
	provider, err := signIn(ctx, adminUser, adminUser)
	if err != nil {
		return err
	}
	identity, err := openstack.NewIdentityV3(provider, gophercloud.EndpointOpts{Region: region})
	if err != nil {
		return err
	}
	c := &catalog{ctx: ctx, identity: identity, ids: map[string]string{}}
	for _, g := range grants() {
		c.grant(g)
	}
	for _, s := range []struct{ name, kind, url string }{
		{"placement", "placement", url(placementPort, "")},
		{"glance", "image", url(glancePort, "")},
		{"neutron", "network", url(neutronPort, "")},
		{"nova", "compute", url(novaPort, "/v2.1")},
	} {
		c.endpoint(s.name, s.kind, s.url)
	}
	return c.err
}

// catalog fills Keystone's; after an error it does nothing more.
type catalog struct {
	ctx      context.Context
	identity *gophercloud.ServiceClient
	ids      map[string]string // "user svc" and the like, to the ID
	err      error
}

// ensure returns the ID of the one thing that list finds, or else of what create
// makes.
func (c *catalog) ensure(key string, list func() ([]string, error), create func() (string, error)) string {
	if id := c.ids[key]; id != "" || c.err != nil {
		return id
	}
	found, err := list()
	switch {
	case err != nil:
	case len(found) > 0:
		c.ids[key] = found[0]
	default:
		c.ids[key], err = create()
	}
	if err != nil {
		c.err = fmt.Errorf("openstack: %s: %w", key, err)
	}
	return c.ids[key]
}

// idsOf returns the IDs in every page of a list.
func idsOf[T any](
	ctx context.Context, pager pagination.Pager, extract func(pagination.Page) ([]T, error), id func(T) string,
) ([]string, error) {
	page, err := pager.AllPages(ctx)
	if err != nil {
		return nil, err
	}
	all, err := extract(page)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, one := range all {
		ids = append(ids, id(one))
	}
	return ids, nil
}

func (c *catalog) project(name string) string {
	return c.ensure("project "+name, func() ([]string, error) {
		return idsOf(c.ctx, projects.List(c.identity, projects.ListOpts{Name: name}), projects.ExtractProjects,
			func(p projects.Project) string { return p.ID })
	}, func() (string, error) {
		p, err := projects.Create(c.ctx, c.identity, projects.CreateOpts{Name: name, DomainID: "default"}).Extract()
		return idOr(err, func() string { return p.ID })
	})
}

func (c *catalog) user(name string) string {
	return c.ensure("user "+name, func() ([]string, error) {
		return idsOf(c.ctx, users.List(c.identity, users.ListOpts{Name: name}), users.ExtractUsers,
			func(u users.User) string { return u.ID })
	}, func() (string, error) {
		u, err := users.Create(c.ctx, c.identity, users.CreateOpts{Name: name, Password: name, DomainID: "default"}).Extract()
		return idOr(err, func() string { return u.ID })
	})
}

func (c *catalog) role(name string) string {
	return c.ensure("role "+name, func() ([]string, error) {
		return idsOf(c.ctx, roles.List(c.identity, roles.ListOpts{Name: name}), roles.ExtractRoles,
			func(r roles.Role) string { return r.ID })
	}, func() (string, error) {
		r, err := roles.Create(c.ctx, c.identity, roles.CreateOpts{Name: name}).Extract()
		return idOr(err, func() string { return r.ID })
	})
}

func (c *catalog) grant(g grant) {
	user, project, role := c.user(g.user), c.project(g.project), c.role(g.role)
	if c.err == nil {
		c.err = roles.Assign(c.ctx, c.identity, role, roles.AssignOpts{UserID: user, ProjectID: project}).ExtractErr()
	}
}

func (c *catalog) endpoint(name, kind, at string) {
	service := c.ensure("service "+name, func() ([]string, error) {
		return idsOf(c.ctx, services.List(c.identity, services.ListOpts{ServiceType: kind}), services.ExtractServices,
			func(s services.Service) string { return s.ID })
	}, func() (string, error) {
		s, err := services.Create(c.ctx, c.identity, services.CreateOpts{Name: name, Type: kind}).Extract()
		return idOr(err, func() string { return s.ID })
	})
	for _, availability := range []gophercloud.Availability{
		gophercloud.AvailabilityPublic, gophercloud.AvailabilityInternal, gophercloud.AvailabilityAdmin,
	} {
		c.ensure(fmt.Sprintf("endpoint %s %s", name, availability), func() ([]string, error) {
			list := endpoints.List(c.identity, endpoints.ListOpts{ServiceID: service, Availability: availability})
			return idsOf(c.ctx, list, endpoints.ExtractEndpoints, func(e endpoints.Endpoint) string { return e.ID })
		}, func() (string, error) {
			e, err := endpoints.Create(c.ctx, c.identity, endpoints.CreateOpts{
				Availability: availability, Region: region, URL: at, ServiceID: service,
			}).Extract()
			return idOr(err, func() string { return e.ID })
		})
	}
}

func idOr(err error, id func() string) (string, error) {
	if err != nil {
		return "", err
	}
	return id(), nil
}

// makeFlavors makes the flavors. A name is an ID as well.
func makeFlavors(ctx context.Context, b *Bed) error {
	admin, err := b.Admin(ctx)
	if err != nil {
		return err
	}
	size := func(n int) *int { return &n }
	for _, f := range []flavors.CreateOpts{
		{Name: FlavorTiny, ID: FlavorTiny, RAM: guestMemory, VCPUs: 1, Disk: size(1)},
		{Name: FlavorFull, ID: FlavorFull, RAM: guestMemory, VCPUs: 1, Disk: size(1), Ephemeral: size(1), Swap: size(64)},
		{Name: FlavorLarge, ID: FlavorLarge, RAM: guestMemory + 32, VCPUs: 1, Disk: size(1)},
	} {
		_, err := flavors.Create(ctx, admin.Compute, f).Extract()
		if err != nil && !gophercloud.ResponseCodeIs(err, http.StatusConflict) {
			return fmt.Errorf("openstack: flavor %s: %w", f.Name, err)
		}
	}
	return nil
}

// buildGuest builds the image of the guest, or finds it built.
func buildGuest(ctx context.Context, b *Bed) (err error) {
	b.guest, err = lab.GuestImage(ctx, b.cache)
	return err
}

// ImageName is the name of the guest's image in Glance.
const ImageName = "guest"

// imageID is the ID in Glance of the guest's image at a path: another one for another
// image. Nova's name for the backing file is its SHA-1.
func imageID(path string) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte(filepath.Base(path))).String()
}

// uploadGuest puts the guest's image into Glance, raw, unless it is there.
func uploadGuest(ctx context.Context, b *Bed) error {
	admin, err := b.Admin(ctx)
	if err != nil {
		return err
	}
	found, err := images.Get(ctx, admin.Image, imageID(b.guest)).Extract()
	switch {
	case err == nil && found.Status == images.ImageStatusActive:
		return nil
	case err == nil: // an upload that was interrupted
		if err := images.Delete(ctx, admin.Image, found.ID).ExtractErr(); err != nil {
			return err
		}
		// Glance keeps the ID of what was deleted.
		forget := fmt.Sprintf("delete from image_properties where image_id='%s'; "+
			"delete from image_locations where image_id='%[1]s'; delete from images where id='%[1]s'", found.ID)
		if _, err := b.SQL(ctx, "glance", forget); err != nil {
			return err
		}
	case !gophercloud.ResponseCodeIs(err, http.StatusNotFound):
		return err
	}
	old, err := admin.images(ctx)
	if err != nil {
		return err
	}
	for _, id := range old {
		if err := images.Delete(ctx, admin.Image, id).ExtractErr(); err != nil {
			return err
		}
	}
	public := images.ImageVisibilityPublic
	image, err := images.Create(ctx, admin.Image, images.CreateOpts{
		ID: imageID(b.guest), Name: ImageName, Visibility: &public, ContainerFormat: "bare", DiskFormat: "raw",
		Properties: map[string]string{"hw_disk_bus": "virtio", "hw_qemu_guest_agent": "yes", "os_require_quiesce": "no"},
	}).Extract()
	if err != nil {
		return err
	}
	f, err := os.Open(b.guest)
	if err != nil {
		return err
	}
	defer f.Close()
	return imagedata.Upload(ctx, admin.Image, image.ID, f).ExtractErr()
}
