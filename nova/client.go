package nova

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
)

// Defaults of Options.
const (
	DefaultRetryFor = 60 * time.Second
	// DefaultCallLimit is above the 60 s that Nova itself waits for the database of
	// a cell before it answers without that cell (nova/context.py, CELL_TIMEOUT). A
	// list may wait more than once.
	DefaultCallLimit = 3 * time.Minute
)

const (
	firstWait = 500 * time.Millisecond // before the first repetition of a request
	maxWait   = 10 * time.Second
)

// Options select the cloud and bound its requests. Everything else comes from the
// usual places of OpenStack clients: clouds.yaml and the OS_* variables of the
// process's environment, which gophercloud's loader reads itself.
type Options struct {
	Cloud     string        // a cloud of clouds.yaml (--os-cloud); wins over OS_CLOUD
	RetryFor  time.Duration // limit for the repetitions of one operation; DefaultRetryFor when 0
	CallLimit time.Duration // limit of one HTTP call; DefaultCallLimit when 0
	UserAgent string        // put before gophercloud's own

	firstWait time.Duration // firstWait when 0
	pageSize  int           // of lists; Nova's max_limit when 0
}

// Client is a signed-in user of one region. It is safe for concurrent use.
type Client struct {
	opts     Options
	calls    atomic.Int64
	provider *gophercloud.ProviderClient
	identity *gophercloud.ServiceClient
	compute  *gophercloud.ServiceClient

	minor      int    // of the microversion 2.x in use
	ownProject string // the token's project; empty for another scope
	admin      bool   // the token has the role admin
	who        account
}

var _ recover.Cloud = (*Client)(nil)

// Open finds the credentials, signs in, finds the compute endpoint and negotiates a
// microversion.
//
// Errors: recover.ErrCredentials when no credentials were found (the text lists what
// was looked for, and where), when they are incomplete or not accepted, or when the
// catalogue has no compute endpoint of the region and interface;
// recover.ErrCloudUnavailable when Keystone or Nova did not answer for RetryFor, or
// their certificate is not trusted; ErrTooOld when Nova does not know microversion
// 2.9.
func Open(ctx context.Context, opts Options) (*Client, error) {
	opts.setDefaults()
	cred, err := findCredentials(opts.Cloud)
	if err != nil {
		return nil, err
	}
	c := &Client{opts: opts, who: cred.account()}
	if c.provider, err = openstack.NewClient(cred.auth.IdentityEndpoint); err != nil {
		return nil, fmt.Errorf("%w: the auth URL %q of %s: %w", recover.ErrCredentials, cred.auth.IdentityEndpoint, cred.source, err)
	}
	if opts.UserAgent != "" {
		c.provider.UserAgent.Prepend(opts.UserAgent)
	}
	c.provider.HTTPClient = http.Client{
		Transport:     newTransport(cred.tls, &c.calls),
		Timeout:       opts.CallLimit,
		CheckRedirect: sameServer,
	}
	if err := c.signIn(ctx, cred); err != nil {
		return nil, err
	}
	if c.identity, err = openstack.NewIdentityV3(c.provider, gophercloud.EndpointOpts{}); err != nil {
		return nil, fmt.Errorf("%w: the auth URL %q: %w", recover.ErrCredentials, cred.auth.IdentityEndpoint, err)
	}
	if err := c.findCompute(cred); err != nil {
		return nil, err
	}
	if err := c.negotiate(ctx); err != nil {
		return nil, err
	}
	zerolog.Ctx(ctx).Debug().Str("auth_url", c.who.authURL).Str("user", c.who.user).
		Str("compute", c.compute.Endpoint).Str("microversion", c.compute.Microversion).Msg("signed in to OpenStack")
	return c, nil
}

// Calls is the number of HTTP requests sent so far, including those of the sign-in
// and repetitions.
func (c *Client) Calls() int64 { return c.calls.Load() }

// OwnProject is the ID of the token's project; empty for a token of another scope.
func (c *Client) OwnProject() string { return c.ownProject }

// signIn gets the first token. When a request is answered with 401, gophercloud
// fetches another, once for all requests in progress.
func (c *Client) signIn(ctx context.Context, cred credentials) error {
	auth := cred.auth
	err := c.retry(ctx, request{doing: "signing in to " + auth.IdentityEndpoint}, func() error {
		return openstack.AuthenticateV3(ctx, c.provider, &auth, gophercloud.EndpointOpts{})
	})
	if err != nil {
		return c.explainSignIn(ctx, err)
	}
	// Both kinds of result have these (identity/v3/tokens/results.go).
	result, ok := c.provider.GetAuthResult().(interface {
		ExtractProject() (*tokens.Project, error)
		ExtractRoles() ([]tokens.Role, error)
	})
	if !ok {
		return fmt.Errorf("%w: %s gave no token that can be read", recover.ErrCredentials, c.who.authURL)
	}
	project, err := result.ExtractProject()
	if err != nil {
		return fmt.Errorf("%w: reading the token's project: %w", recover.ErrCredentials, err)
	}
	if project != nil {
		c.ownProject = project.ID
	}
	roles, err := result.ExtractRoles()
	if err != nil {
		return fmt.Errorf("%w: reading the token's roles: %w", recover.ErrCredentials, err)
	}
	c.admin = slices.ContainsFunc(roles, func(r tokens.Role) bool { return r.Name == "admin" })
	return nil
}

func (o *Options) setDefaults() {
	if o.RetryFor == 0 {
		o.RetryFor = DefaultRetryFor
	}
	if o.CallLimit == 0 {
		o.CallLimit = DefaultCallLimit
	}
	if o.firstWait == 0 {
		o.firstWait = firstWait
	}
}
