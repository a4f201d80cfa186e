package nova

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// project is Keystone's record of a project, or of a domain.
type project struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	DomainID string `json:"domain_id"`
}

// projects find Keystone's records of projects.
type projects struct{ *session }

// Project returns the ID of a project. nameOrID is tried as an ID first, then as a
// name, in the domain (name or ID) if that is not empty.
//
// Errors: recover.ErrNoProject; recover.ErrAmbiguous with the candidates' IDs and
// domains; recover.ErrForbidden when the user may neither get that project nor list
// projects.
func (c projects) Project(ctx context.Context, nameOrID, domain string) (string, error) {
	if nameOrID == "" {
		return "", fmt.Errorf("%w: no name or ID was given", recover.ErrNoProject)
	}
	byID, err := c.projectByID(ctx, nameOrID)
	switch {
	case err == nil:
		return byID, nil
	case errors.Is(err, recover.ErrNoProject), errors.Is(err, recover.ErrForbidden):
		// Keystone may answer 403 for a project that does not exist.
	default:
		return "", err
	}
	named, nameErr := c.projectsByName(ctx, nameOrID)
	if nameErr != nil {
		if errors.Is(nameErr, recover.ErrForbidden) && errors.Is(err, recover.ErrForbidden) {
			return "", fmt.Errorf("%w; and %w", nameErr, err)
		}
		return "", nameErr
	}
	if domain != "" && len(named) > 0 {
		if named, err = c.inDomain(ctx, named, domain); err != nil {
			return "", err
		}
	}
	switch len(named) {
	case 0:
		if domain != "" {
			return "", fmt.Errorf("%w: %q in domain %q, by name or ID", recover.ErrNoProject, nameOrID, domain)
		}
		return "", fmt.Errorf("%w: %q, by name or ID", recover.ErrNoProject, nameOrID)
	case 1:
		return named[0].ID, nil
	}
	var candidates []string
	for _, p := range named {
		candidates = append(candidates, fmt.Sprintf("%s in domain %s", p.ID, p.DomainID))
	}
	slices.Sort(candidates)
	return "", fmt.Errorf("%w: %d projects are called %q: %s. Give the ID, or the domain",
		recover.ErrAmbiguous, len(named), nameOrID, strings.Join(candidates, "; "))
}

func (c projects) projectByID(ctx context.Context, id string) (string, error) {
	var answer struct {
		Project project `json:"project"`
	}
	r := request{
		doing:  fmt.Sprintf("looking up project %q", id),
		method: http.MethodGet,
		url:    c.identity.ServiceURL("projects", url.PathEscape(id)),
		into:   &answer,
		policy: policyGetProject,
	}
	err := c.send(ctx, c.identity, r)
	var f *failure
	if errors.As(err, &f) && f.status == http.StatusNotFound {
		return "", fmt.Errorf("%w: %q", recover.ErrNoProject, id)
	}
	if err != nil {
		return "", err
	}
	if answer.Project.ID != id {
		return "", fmt.Errorf("%w: %q", recover.ErrNoProject, id)
	}
	return id, nil
}

func (c projects) projectsByName(ctx context.Context, name string) ([]project, error) {
	var answer struct {
		Projects []project `json:"projects"`
	}
	if err := c.listByName(ctx, "project", name, policyListProjects, &answer); err != nil {
		return nil, err
	}
	if answer.Projects == nil {
		return nil, fmt.Errorf("looking up project %q by name: %w: it has no list of projects", name, recover.ErrCloudAnswer)
	}
	// On MySQL, Keystone's comparison ignores case.
	return slices.DeleteFunc(answer.Projects, func(p project) bool { return p.Name != name }), nil
}

// listByName lists the projects or domains of a name; kind is "project" or "domain".
func (c projects) listByName(ctx context.Context, kind, name, policy string, answer any) error {
	return c.send(ctx, c.identity, request{
		doing:  fmt.Sprintf("looking up %s %q by name", kind, name),
		method: http.MethodGet,
		url:    c.identity.ServiceURL(kind+"s") + "?" + url.Values{"name": {name}}.Encode(),
		into:   answer,
		policy: policy,
	})
}

// inDomain returns the projects in a domain, given by its ID or else by its name.
func (c projects) inDomain(ctx context.Context, projects []project, domain string) ([]project, error) {
	keep := func(domainID string) []project {
		return slices.DeleteFunc(slices.Clone(projects), func(p project) bool { return p.DomainID != domainID })
	}
	if kept := keep(domain); len(kept) > 0 {
		return kept, nil
	}
	var answer struct {
		Domains []project `json:"domains"`
	}
	if err := c.listByName(ctx, "domain", domain, policyListDomains, &answer); err != nil {
		return nil, err
	}
	var kept []project
	for _, d := range answer.Domains {
		if d.Name == domain {
			kept = append(kept, keep(d.ID)...)
		}
	}
	return kept, nil
}
