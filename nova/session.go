package nova

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
	"github.com/rs/zerolog"

	"github.com/os-rescue/os-rescue/recover"
)

// session is a sign-in with the endpoints of one region.
type session struct {
	opts     Options
	calls    atomic.Int64
	provider *gophercloud.ProviderClient
	identity *gophercloud.ServiceClient
	compute  *gophercloud.ServiceClient

	minor      int    // of the microversion 2.x in use
	ownProject string // the token's project; empty for another scope
	who        account
}

// openSession does the work of Open.
func openSession(ctx context.Context, opts Options) (*session, error) {
	opts.setDefaults()
	cred, err := findCredentials(opts.Cloud)
	if err != nil {
		return nil, err
	}
	s := &session{opts: opts, who: cred.account()}
	if s.provider, err = openstack.NewClient(cred.auth.IdentityEndpoint); err != nil {
		return nil, fmt.Errorf("%w: the auth URL %q of %s: %w", recover.ErrCredentials, cred.auth.IdentityEndpoint, cred.source, err)
	}
	if opts.UserAgent != "" {
		s.provider.UserAgent.Prepend(opts.UserAgent)
	}
	s.provider.HTTPClient = http.Client{
		Transport:     newTransport(cred.tls, &s.calls),
		Timeout:       opts.CallLimit,
		CheckRedirect: sameServer,
	}
	if err := s.signIn(ctx, cred); err != nil {
		return nil, err
	}
	if s.identity, err = openstack.NewIdentityV3(s.provider, gophercloud.EndpointOpts{}); err != nil {
		return nil, fmt.Errorf("%w: the auth URL %q: %w", recover.ErrCredentials, cred.auth.IdentityEndpoint, err)
	}
	if err := s.findCompute(cred); err != nil {
		return nil, err
	}
	if err := s.negotiate(ctx); err != nil {
		return nil, err
	}
	zerolog.Ctx(ctx).Debug().Str("auth_url", s.who.authURL).Str("user", s.who.user).
		Str("compute", s.compute.Endpoint).Str("microversion", s.compute.Microversion).Msg("signed in to OpenStack")
	return s, nil
}

// Calls is the number of HTTP requests sent so far, including those of the sign-in
// and repetitions.
func (s *session) Calls() int64 { return s.calls.Load() }

// OwnProject is the ID of the token's project; empty for a token of another scope.
func (s *session) OwnProject() string { return s.ownProject }

// Admin is true when the token has the role admin.
func (s *session) Admin() bool { return s.who.admin }

// signIn gets the first token. When a request is answered with 401, gophercloud
// fetches another, once for all requests in progress.
func (s *session) signIn(ctx context.Context, cred credentials) error {
	auth := cred.auth
	err := s.retry(ctx, request{doing: "signing in to " + auth.IdentityEndpoint}, func() error {
		return openstack.AuthenticateV3(ctx, s.provider, &auth, gophercloud.EndpointOpts{})
	})
	if err != nil {
		return s.who.explainSignIn(ctx, err, s.Calls())
	}
	// Both kinds of result have these (identity/v3/tokens/results.go).
	result, ok := s.provider.GetAuthResult().(interface {
		ExtractProject() (*tokens.Project, error)
		ExtractRoles() ([]tokens.Role, error)
	})
	if !ok {
		return fmt.Errorf("%w: %s gave no token that can be read", recover.ErrCredentials, s.who.authURL)
	}
	project, err := result.ExtractProject()
	if err != nil {
		return fmt.Errorf("%w: reading the token's project: %w", recover.ErrCredentials, err)
	}
	if project != nil {
		s.ownProject = project.ID
	}
	roles, err := result.ExtractRoles()
	if err != nil {
		return fmt.Errorf("%w: reading the token's roles: %w", recover.ErrCredentials, err)
	}
	s.who.admin = slices.ContainsFunc(roles, func(r tokens.Role) bool { return r.Name == "admin" })
	return nil
}
