package openstack

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	computeservices "github.com/gophercloud/gophercloud/v2/openstack/compute/v2/services"

	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// microversion is the newest that the bed's Nova has
// (nova/api/openstack/api_version_request.py of 26).
const microversion = "2.93"

// askEvery is how often an API is asked for what it has not done yet: an answer
// costs it a tenth of a second.
const askEvery = 500 * time.Millisecond

// Client is a user who is signed in to a project.
type Client struct {
	Compute  *gophercloud.ServiceClient // at the newest microversion
	Image    *gophercloud.ServiceClient
	Identity *gophercloud.ServiceClient

	bed *Bed
}

// Env returns the OS_* variables of a user in a project, "NAME=value" each.
func (b *Bed) Env(user, project string) []string {
	return []string{
		"OS_AUTH_URL=" + url(keystonePort, "/v3"),
		"OS_USERNAME=" + user,
		"OS_PASSWORD=" + user,
		"OS_PROJECT_NAME=" + project,
		"OS_USER_DOMAIN_NAME=Default",
		"OS_PROJECT_DOMAIN_NAME=Default",
		"OS_REGION_NAME=" + region,
		"OS_IDENTITY_API_VERSION=3",
	}
}

// Client signs a user in to a project.
func (b *Bed) Client(ctx context.Context, user, project string) (*Client, error) {
	provider, err := signIn(ctx, user, project)
	if err != nil {
		return nil, err
	}
	c := &Client{bed: b}
	opts := gophercloud.EndpointOpts{Region: region}
	if c.Compute, err = openstack.NewComputeV2(provider, opts); err != nil {
		return nil, err
	}
	c.Compute.Microversion = microversion
	if c.Image, err = openstack.NewImageV2(provider, opts); err != nil {
		return nil, err
	}
	if c.Identity, err = openstack.NewIdentityV3(provider, opts); err != nil {
		return nil, err
	}
	return c, nil
}

// Admin returns the administrator, who is signed in once.
func (b *Bed) Admin(ctx context.Context) (*Client, error) {
	b.signIn.Lock()
	defer b.signIn.Unlock()
	if b.admin != nil {
		return b.admin, nil
	}
	var err error
	b.admin, err = b.Client(ctx, adminUser, adminUser)
	return b.admin, err
}

// signIn signs a user in to a project, for whichever API.
func signIn(ctx context.Context, user, project string) (*gophercloud.ProviderClient, error) {
	provider, err := openstack.NewClient(url(keystonePort, "/v3"))
	if err != nil {
		return nil, err
	}
	// A service that was stopped and started would find the old connection.
	provider.HTTPClient = http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	err = openstack.Authenticate(ctx, provider, gophercloud.AuthOptions{
		IdentityEndpoint: url(keystonePort, "/v3"), Username: user, Password: user,
		DomainName: "Default", TenantName: project, AllowReauth: true,
		Scope: &gophercloud.AuthScope{ProjectName: project, DomainName: "Default"},
	})
	if err != nil {
		return nil, fmt.Errorf("openstack: sign %s in to %s: %w", user, project, err)
	}
	return provider, nil
}

// until calls f every so often until it returns nil, and returns its last error
// when the time is over.
func until(ctx context.Context, every time.Duration, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience.Of(awaitLimit))
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(every):
		}
	}
}

// awaitPorts waits until Neutron can list ports. Its first such query fails
// until its object mappers have been configured, which others do.
func awaitPorts(ctx context.Context) error {
	provider, err := signIn(ctx, adminUser, adminUser)
	if err != nil {
		return err
	}
	network, err := openstack.NewNetworkV2(provider, gophercloud.EndpointOpts{Region: region})
	if err != nil {
		return err
	}
	return until(ctx, askEvery, func(ctx context.Context) error {
		var last error
		for _, what := range []string{"networks", "ports"} {
			_, last = network.Get(ctx, network.ServiceURL(what), nil, nil) //nolint:bodyclose // closed when nothing is to be read
		}
		return last
	})
}

// awaitHypervisor waits until every service of Nova's is up and an instance can
// be scheduled to this host.
func awaitHypervisor(ctx context.Context, b *Bed) error {
	admin, err := b.Admin(ctx)
	if err != nil {
		return err
	}
	return until(ctx, askEvery, func(ctx context.Context) error {
		for _, binary := range []string{NovaConductor, NovaScheduler, NovaCompute} {
			if err := admin.reports(ctx, binary); err != nil {
				return err
			}
		}
		// Not the details, for which Nova asks nova-compute.
		var list struct {
			Hypervisors []struct{ State string }
		}
		response, err := admin.Compute.Get(ctx, admin.Compute.ServiceURL("os-hypervisors"), &list, nil)
		if err != nil {
			return err
		}
		response.Body.Close()
		for _, h := range list.Hypervisors {
			if h.State == "up" {
				return nil
			}
		}
		return fmt.Errorf("openstack: no hypervisor is up: see %s", b.Log(NovaCompute))
	})
}

// reports returns nil when Nova takes one of its services to be up, and not
// because of what it was before the bed started it last; ErrDown otherwise.
func (c *Client) reports(ctx context.Context, binary string) error {
	page, err := computeservices.List(c.Compute, computeservices.ListOpts{Binary: binary}).AllPages(ctx)
	if err != nil {
		return err
	}
	found, err := computeservices.ExtractServices(page)
	if err != nil {
		return err
	}
	for _, s := range found {
		if s.State == "up" && s.UpdatedAt.After(c.bed.service(binary).launched) {
			return nil
		}
	}
	return fmt.Errorf("openstack: Nova sees no %s up: %w", binary, ErrDown)
}
