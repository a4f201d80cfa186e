package nova

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// ErrTooOld: the compute endpoint knows no microversion 2.9 (Nova 13.0, Mitaka).
var ErrTooOld = errors.New("this Nova is too old")

// explain turns the last failure of a request into the errors of recover.Cloud.
func (a account) explain(ctx context.Context, r request, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", r.doing, ctx.Err())
	}
	var f *failure
	if !errors.As(err, &f) {
		return fmt.Errorf("%s: %w: %w", r.doing, recover.ErrCloudAnswer, err)
	}
	switch {
	case f.status == http.StatusUnauthorized && a.token:
		return fmt.Errorf("%s: %w: the token has expired or was revoked, and can't be renewed. Sign in with a password or an "+
			"application credential: %w", r.doing, recover.ErrCredentials, f)
	case f.status == http.StatusUnauthorized:
		return fmt.Errorf("%s: %w: %s does not accept %s (any more): %w", r.doing, recover.ErrCredentials, a.authURL, a, f)
	case f.status == http.StatusForbidden:
		return forbidden(r, f)
	case f.status == http.StatusNotFound && r.instance && f.fault == "itemNotFound":
		if !a.admin {
			return fmt.Errorf("%s: %w: there is no such instance, or it belongs to another project: Nova shows those only to the role "+
				"admin (its rule context_is_admin), which %s does not have: %w", r.doing, recover.ErrForbidden, a.user, f)
		}
		return fmt.Errorf("%s: %w: %w", r.doing, recover.ErrNoInstance, f)
	case f.status == http.StatusConflict:
		return fmt.Errorf("%s: %w: %w", r.doing, recover.ErrTaskUnderWay, f)
	case isCertificateError(f.cause):
		return fmt.Errorf("%s: %w: the certificate of %s is not trusted (OS_CACERT, or cacert in clouds.yaml, names a CA file): %w",
			r.doing, recover.ErrCloudUnavailable, f.url, f)
	case f.status == 0 && r.once && !f.rejected:
		return fmt.Errorf("%s: %w: the request was sent and may be carried out; look at the instance before trying again: %w",
			r.doing, recover.ErrCloudUnavailable, f)
	case f.status >= 500 && r.once && !f.rejected:
		return fmt.Errorf("%s: %w: the request may still be carried out; look at the instance before trying again: %w",
			r.doing, recover.ErrCloudUnavailable, f)
	case errors.Is(f.cause, errTooLong):
		return fmt.Errorf("%s: %w: %w", r.doing, recover.ErrCloudAnswer, f)
	case f.status == 0, f.transient:
		return fmt.Errorf("%s: %w: %s: %w", r.doing, recover.ErrCloudUnavailable, f.url, f)
	case r.once: // it was refused, whoever did that
		return fmt.Errorf("%s: %w", r.doing, f)
	default:
		return fmt.Errorf("%s: %w: %w", r.doing, recover.ErrCloudAnswer, f)
	}
}

// misread explains why the answer to a request can't be used: it is not Nova's, or a policy
// hides a part of it.
func misread(r request, err error) error {
	if errors.Is(err, recover.ErrForbidden) {
		return fmt.Errorf("%s: %w", r.doing, err)
	}
	return fmt.Errorf("%s: %w: %w", r.doing, recover.ErrCloudAnswer, err)
}

// explainSignIn does the same for the first sign-in, which sent so many calls.
func (a account) explainSignIn(ctx context.Context, err error, calls int64) error {
	if ctx.Err() != nil {
		return fmt.Errorf("signing in to %s: %w", a.authURL, ctx.Err())
	}
	var f *failure
	if !errors.As(err, &f) {
		return fmt.Errorf("%w: %s at %s: %w", recover.ErrCredentials, a, a.authURL, err)
	}
	switch {
	case isCertificateError(f.cause):
		return fmt.Errorf("%w: the certificate of %s is not trusted (OS_CACERT, or cacert in clouds.yaml, names a CA file): %w",
			recover.ErrCloudUnavailable, a.authURL, f)
	case calls == 0: // gophercloud refused before it sent anything
		return fmt.Errorf("%w: the credentials for %s (%s) are incomplete: %w", recover.ErrCredentials, a.authURL, a, f.cause)
	case errors.Is(f.cause, errTooLong):
		return fmt.Errorf("%w: Keystone at %s: %w", recover.ErrCloudAnswer, a.authURL, f)
	case f.status == 0, f.transient:
		return fmt.Errorf("%w: Keystone at %s: %w", recover.ErrCloudUnavailable, a.authURL, f)
	case f.status == http.StatusUnauthorized:
		return fmt.Errorf("%w: Keystone at %s does not accept %s: wrong password or secret, or no such user or project: %w",
			recover.ErrCredentials, a.authURL, a, f)
	case f.status == http.StatusNotFound && a.token: // keystone/exception.py, TokenNotFound
		return fmt.Errorf("%w: Keystone at %s does not know the token (any more): sign in with a password or an application credential: %w",
			recover.ErrCredentials, a.authURL, f)
	case f.status == http.StatusNotFound:
		return fmt.Errorf("%w: there is no Keystone v3 at %s: %w", recover.ErrCredentials, a.authURL, f)
	default:
		return fmt.Errorf("%w: Keystone at %s refused %s: %w", recover.ErrCredentials, a.authURL, a, f)
	}
}

// forbidden names the policy that forbids the request: the one in the service's
// message, or else the one that the request usually needs.
func forbidden(r request, f *failure) error {
	policy := r.policy
	// nova/exception.py, PolicyNotAuthorized; keystone/exception.py, ForbiddenAction.
	named := regexp.MustCompile(`(?:Policy doesn't allow|requested action:) ([a-z_]+:[A-Za-z0-9_:-]+)`).FindStringSubmatch(f.message)
	if named != nil {
		policy = strings.TrimRight(named[1], ":")
	}
	if policy == "" {
		return fmt.Errorf("%s: %w: %w", r.doing, recover.ErrForbidden, f)
	}
	return fmt.Errorf("%s: %w: the policy %s forbids it; by default %s has it: %w", r.doing, recover.ErrForbidden, policy, roleOf(policy), f)
}

// The policies that os-rescue needs (nova/policies/*.py, keystone/common/policies/*.py).
const (
	policyGetProject     = "identity:get_project"
	policyListProjects   = "identity:list_projects"
	policyListDomains    = "identity:list_domains"
	policyShow           = "os_compute_api:servers:show"
	policyAllTenants     = "os_compute_api:servers:detail:get_all_tenants"
	policyExtended       = "os_compute_api:os-extended-server-attributes"
	policyExtendedStatus = "os_compute_api:os-extended-status"
	policyServices       = "os_compute_api:os-services:list"
	policyLock           = "os_compute_api:os-lock-server:lock"
	policyUnlock         = "os_compute_api:os-lock-server:unlock"
	policyPause          = "os_compute_api:os-pause-server:pause"
	policyReboot         = "os_compute_api:servers:reboot"
	policyActions        = "os_compute_api:os-instance-actions:list"
)

// roleOf says who has a policy by default.
func roleOf(policy string) string {
	switch policy {
	case policyGetProject, policyListProjects:
		return "the role admin, or reader on the system or the project's domain,"
	case policyListDomains:
		return "the role admin, or reader on the system,"
	case policyShow, policyActions, "os_compute_api:servers:detail":
		return "the role admin, or reader in the instance's project,"
	case policyLock, policyUnlock, policyPause, policyReboot:
		return "the role admin, or member in the instance's project,"
	default:
		return "the role admin"
	}
}

func isCertificateError(err error) bool {
	var verification *tls.CertificateVerificationError
	return errors.As(err, &verification)
}
