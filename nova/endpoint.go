package nova

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
	"github.com/gophercloud/gophercloud/v2/openstack/utils"

	"github.com/os-rescue/os-rescue/recover"
)

// Microversions 2.x, see the package comment.
const (
	minorLocked   = 9
	minorDownCell = 69
	minorReason   = 73
	minorWanted   = minorReason
)

// findCompute takes the compute endpoint of the region and interface from the
// token's catalogue. It refuses a catalogue with several regions if none was named:
// in the wrong region every instance seems to be deleted.
func (s *session) findCompute(cred credentials) error {
	result, ok := s.provider.GetAuthResult().(interface {
		ExtractServiceCatalog() (*tokens.ServiceCatalog, error)
	})
	if !ok {
		return fmt.Errorf("%w: %s gave no catalogue that can be read", recover.ErrCredentials, s.who.authURL)
	}
	catalogue, err := result.ExtractServiceCatalog()
	if err != nil {
		return fmt.Errorf("%w: reading the token's catalogue: %w", recover.ErrCredentials, err)
	}
	want := cred.endpoint
	want.ApplyDefaults("compute")
	var found []tokens.Endpoint
	var offered, regions []string
	for _, entry := range catalogue.Entries {
		if entry.Type != "compute" {
			continue
		}
		for _, e := range entry.Endpoints {
			offered = append(offered, fmt.Sprintf("%s of region %s", e.Interface, firstOf(e.Region, e.RegionID)))
			if gophercloud.Availability(e.Interface) != want.Availability ||
				want.Region != "" && e.Region != want.Region && e.RegionID != want.Region {
				continue
			}
			found = append(found, e)
			if region := firstOf(e.Region, e.RegionID); !slices.Contains(regions, region) {
				regions = append(regions, region)
			}
		}
	}
	if len(found) == 0 {
		wanted := string(want.Availability) + " interface"
		if want.Region != "" {
			wanted += " of region " + want.Region
		}
		if len(offered) == 0 {
			return fmt.Errorf("%w: the catalogue that Keystone at %s gives %s has no compute service; is the token scoped to a project?",
				recover.ErrCredentials, s.who.authURL, s.who)
		}
		return fmt.Errorf("%w: the catalogue has no compute endpoint for the %s (OS_REGION_NAME and OS_INTERFACE, or region_name and "+
			"interface in clouds.yaml); it has: %s", recover.ErrCredentials, wanted, strings.Join(offered, ", "))
	}
	if len(regions) > 1 {
		return fmt.Errorf("%w: the catalogue has the regions %s: name one with OS_REGION_NAME, or region_name in clouds.yaml",
			recover.ErrCredentials, strings.Join(regions, ", "))
	}
	s.compute = &gophercloud.ServiceClient{
		ProviderClient: s.provider,
		Endpoint:       gophercloud.NormalizeURL(found[0].URL),
		Type:           "compute",
	}
	return nil
}

type apiVersion struct {
	ID      string `json:"id"`
	Version string `json:"version"`     // the newest microversion; empty when there are none
	Min     string `json:"min_version"` // the oldest
}

// negotiate reads the version document of the compute endpoint and chooses a
// microversion. gophercloud's utils.GetSupportedMicroversions is not used: it treats
// an endpoint that does not answer like one without microversions, and does not
// know endpoints that end in the project's ID.
func (s *session) negotiate(ctx context.Context) error {
	document, versioned, err := versionDocument(s.compute.Endpoint)
	if err != nil {
		return fmt.Errorf("the compute endpoint %q in the catalogue: %w", s.compute.Endpoint, err)
	}
	var answer struct {
		Version  apiVersion   `json:"version"`
		Versions []apiVersion `json:"versions"`
	}
	r := request{
		doing:  "asking Nova for its versions",
		method: http.MethodGet,
		url:    document,
		into:   &answer,
		ok:     []int{http.StatusOK, http.StatusMultipleChoices},
	}
	if err := s.send(ctx, s.compute, r); err != nil {
		return err
	}
	version := answer.Version
	if !versioned {
		i := slices.IndexFunc(answer.Versions, func(v apiVersion) bool { return v.ID == "v2.1" })
		if i < 0 {
			return fmt.Errorf("%w: %s has no API v2.1", ErrTooOld, document)
		}
		version = answer.Versions[i]
		s.compute.Endpoint = document + "v2.1/"
	}
	if version.Version == "" {
		return fmt.Errorf("%w: %s serves API %s, which has no microversions; 2.%d is the least (Nova 13.0, Mitaka), "+
			"at an endpoint that ends in /v2.1", ErrTooOld, document, firstOf(version.ID, "of an unknown version"), minorLocked)
	}
	major, newest, err := utils.ParseMicroversion(version.Version)
	if err != nil {
		return fmt.Errorf("the version document %s: %w", document, err)
	}
	_, oldest, err := utils.ParseMicroversion(version.Min)
	if err != nil {
		return fmt.Errorf("the version document %s: %w", document, err)
	}
	if major != 2 || newest < minorLocked {
		return fmt.Errorf("%w: %s serves microversions up to %s; 2.%d is the least (Nova 13.0, Mitaka)",
			ErrTooOld, document, version.Version, minorLocked)
	}
	s.minor = min(newest, minorWanted)
	if s.minor < oldest {
		return fmt.Errorf("%s serves microversions %s to %s, and this program speaks 2.%d at most: a newer os-rescue is needed",
			document, version.Min, version.Version, minorWanted)
	}
	s.compute.Microversion = fmt.Sprintf("2.%d", s.minor)
	return nil
}

// versionDocument cuts an endpoint after its version: "http://host:8774/v2.1/PROJECT/"
// has its document at "http://host:8774/v2.1/". An endpoint without a version is
// its own document.
func versionDocument(endpoint string) (document string, versioned bool, err error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", false, err
	}
	if u.Host == "" {
		return "", false, errors.New("it has no host")
	}
	version := regexp.MustCompile(`^v\d+(\.\d+)?$`)
	parts := strings.Split(strings.TrimRight(u.Path, "/"), "/")
	u.RawPath, u.RawQuery, u.Fragment = "", "", ""
	for i := len(parts) - 1; i >= 0; i-- {
		if version.MatchString(parts[i]) {
			u.Path = strings.Join(parts[:i+1], "/") + "/"
			return u.String(), true, nil
		}
	}
	u.Path = strings.Join(parts, "/") + "/"
	return u.String(), false, nil
}
