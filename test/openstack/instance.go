package openstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"

	"github.com/os-rescue/os-rescue/test/lab"
)

// Spec says what an instance is like.
type Spec struct {
	Name        string // "guest" when empty
	Flavor      string // FlavorTiny when empty
	ConfigDrive bool
}

// Instance is an instance of the bed's. Its guest is package lab's.
type Instance struct {
	UUID       string
	Name       string // what its owner calls it
	ProjectID  string
	Domain     string // libvirt's name; set once Nova has made one
	Dir        string // where its files are
	Disk       string // Dir/disk
	ConsoleLog string // Dir/console.log

	bed *Bed
}

// Create asks Nova for an instance in the client's project, with no network, and
// does not wait for it.
func (c *Client) Create(ctx context.Context, spec Spec) (*Instance, error) {
	if spec.Name == "" {
		spec.Name = "guest"
	}
	if spec.Flavor == "" {
		spec.Flavor = FlavorTiny
	}
	image, err := c.image(ctx)
	if err != nil {
		return nil, err
	}
	opts := servers.CreateOpts{Name: spec.Name, ImageRef: image, FlavorRef: spec.Flavor, Networks: "none"}
	if spec.ConfigDrive {
		opts.ConfigDrive = &spec.ConfigDrive
	}
	server, err := servers.Create(ctx, c.Compute, opts, nil).Extract()
	if err != nil {
		return nil, fmt.Errorf("openstack: create %s: %w", spec.Name, err)
	}
	dir := filepath.Join(c.bed.InstancesPath(), server.ID)
	return &Instance{
		UUID: server.ID, Name: spec.Name, Dir: dir,
		Disk: filepath.Join(dir, "disk"), ConsoleLog: filepath.Join(dir, "console.log"), bed: c.bed,
	}, nil
}

// image returns the ID of the guest's image.
func (c *Client) image(ctx context.Context) (string, error) {
	found, err := c.images(ctx)
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("openstack: there are %d images of the name %s", len(found), ImageName)
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

// images returns the IDs of all images of the name ImageName.
func (c *Client) images(ctx context.Context) ([]string, error) {
	return idsOf(ctx, images.List(c.Image, images.ListOpts{Name: ImageName}), images.ExtractImages,
		func(i images.Image) string { return i.ID })
}

// Boot creates an instance and returns when its guest is up.
func (c *Client) Boot(ctx context.Context, spec Spec) (*Instance, error) {
	i, err := c.Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	return i, i.AwaitUp(ctx)
}

// AwaitUp waits until a new instance is ACTIVE and its guest's first boot is ready.
func (i *Instance) AwaitUp(ctx context.Context) error {
	admin, err := i.bed.Admin(ctx)
	if err != nil {
		return err
	}
	server, err := admin.AwaitStatus(ctx, i.UUID, "ACTIVE")
	if err != nil {
		return err
	}
	i.Domain, i.ProjectID = server.InstanceName, server.TenantID
	_, err = i.AwaitBoot(ctx, 1)
	return err
}

// AwaitBoot waits until that boot of the guest, counted from 1, is ready, and
// returns what it said.
func (i *Instance) AwaitBoot(ctx context.Context, number int) (boot lab.Boot, err error) {
	err = until(ctx, 100*time.Millisecond, func(context.Context) error {
		boots, err := i.Boots()
		if err != nil {
			return err
		}
		if len(boots) == 0 || boots[len(boots)-1].Number < number || !boots[len(boots)-1].Ready {
			return fmt.Errorf("openstack: boot %d of %s is not ready; the guest has said %v", number, i.UUID, boots)
		}
		boot = boots[len(boots)-1]
		return nil
	})
	if err == nil && boot.Number != number {
		err = fmt.Errorf("openstack: the guest of %s has booted %d times, want %d", i.UUID, boot.Number, number)
	}
	return boot, err
}

// AwaitBeat waits until the guest has said that beat or a later one.
func (i *Instance) AwaitBeat(ctx context.Context, beat int) error {
	return until(ctx, 100*time.Millisecond, func(context.Context) error {
		last, err := i.LastBeat()
		if err == nil && last < beat {
			err = fmt.Errorf("openstack: %s is at beat %d, want %d", i.UUID, last, beat)
		}
		return err
	})
}

// LastBeat returns the last beat that the guest has said since its QEMU started,
// 0 before the first.
func (i *Instance) LastBeat() (int, error) {
	boots, err := i.Boots()
	if err != nil {
		return 0, err
	}
	for n := len(boots) - 1; n >= 0; n-- {
		if beats := boots[n].Beats; len(beats) > 0 {
			return beats[len(beats)-1], nil
		}
	}
	return 0, nil
}

// Boots returns what the guest has said since its QEMU started: Nova has the
// console log begin anew then. It reads the file that virtlogd writes, deleted or
// not, and the console log in its place when virtlogd has none; fs.ErrNotExist
// when that is missing too.
func (i *Instance) Boots() ([]lab.Boot, error) {
	text, err := i.console()
	if err != nil {
		return nil, err
	}
	return lab.ParseConsole(bytes.NewReader(text)), nil
}

func (i *Instance) console() ([]byte, error) {
	pid, err := i.bed.PID(Virtlogd)
	if err != nil {
		return nil, err
	}
	files, err := lab.OpenFiles(pid)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if strings.TrimSuffix(f.Path, " (deleted)") != i.ConsoleLog {
			continue
		}
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/fd/%d", pid, f.FD)); err == nil {
			return text, nil
		}
	}
	return os.ReadFile(i.ConsoleLog)
}

// QemuPID returns the pid of the instance's QEMU, 0 when it does not run.
func (i *Instance) QemuPID() int { return lab.QemuPID(i.Domain) }

// OpenFiles returns what the instance's QEMU has open below the
// instances' directory, by
// path without " (deleted)".
func (i *Instance) OpenFiles() (map[string]lab.OpenFile, error) {
	files, err := lab.OpenFiles(i.QemuPID())
	if err != nil {
		return nil, err
	}
	found := map[string]lab.OpenFile{}
	for _, f := range files {
		if strings.HasPrefix(f.Path, i.bed.InstancesPath()+"/") {
			found[strings.TrimSuffix(f.Path, " (deleted)")] = f
		}
	}
	return found, nil
}

// DomainState returns virsh's word for the state of the instance's domain; empty
// when libvirt knows no such domain.
func (i *Instance) DomainState(ctx context.Context) (string, error) {
	list, err := virsh(ctx, "list", "--all", "--name")
	if err != nil {
		return "", err
	}
	for _, name := range strings.Fields(list) {
		if name == i.Domain {
			state, err := virsh(ctx, "domstate", name)
			return strings.TrimSpace(state), err
		}
	}
	return "", nil
}

// Server returns an instance as Nova shows it to the client.
func (c *Client) Server(ctx context.Context, id string) (*servers.Server, error) {
	return servers.Get(ctx, c.Compute, id).Extract()
}

// AwaitStatus waits until Nova says that an instance has a status (ACTIVE, SHUTOFF,
// ...) and no task. An instance that ends in ERROR instead does not come to it.
func (c *Client) AwaitStatus(ctx context.Context, id, status string) (server *servers.Server, err error) {
	failed := errors.New("")
	err = until(ctx, askEvery, func(ctx context.Context) error {
		var err error
		if server, err = c.Server(ctx, id); err != nil {
			return err
		}
		switch {
		case server.Status == status && server.TaskState == "":
			return nil
		case server.Status == "ERROR" && server.TaskState == "":
			failed = fmt.Errorf("openstack: instance %s is in ERROR: %s", id, server.Fault.Message)
			return nil
		}
		return fmt.Errorf("openstack: instance %s is %s (task %q), want %s", id, server.Status, server.TaskState, status)
	})
	if err == nil && server.Status != status {
		err = failed
	}
	return server, err
}

// DeleteAll deletes every instance of every project, and returns when Nova has
// none left. The client must be the administrator's. An instance that the
// database was made to show on another host comes back to this one first.
func (c *Client) DeleteAll(ctx context.Context) error {
	back := fmt.Sprintf("update instances set host='%s', node='%s' where deleted=0 and host is not null and host<>'%[1]s'",
		c.bed.Host(), hostName)
	if _, err := c.bed.SQL(ctx, "nova", back); err != nil {
		return err
	}
	asked := map[string]bool{}
	return until(ctx, askEvery, func(ctx context.Context) error {
		left, err := idsOf(ctx, servers.List(c.Compute, servers.ListOpts{AllTenants: true}), servers.ExtractServers,
			func(s servers.Server) string { return s.ID })
		if err != nil {
			return err
		}
		for _, id := range left {
			if asked[id] {
				continue
			}
			err := servers.Delete(ctx, c.Compute, id).ExtractErr()
			if err != nil && !gophercloud.ResponseCodeIs(err, http.StatusNotFound) {
				return err
			}
			asked[id] = true
		}
		if len(left) > 0 {
			return fmt.Errorf("openstack: Nova still has the instances %v", left)
		}
		return nil
	})
}
