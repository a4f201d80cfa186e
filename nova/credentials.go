package nova

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/config/clouds"

	"github.com/os-rescue/os-rescue/recover"
)

// credentials are the parameters of a sign-in.
type credentials struct {
	auth     gophercloud.AuthOptions
	endpoint gophercloud.EndpointOpts
	tls      *tls.Config
	source   string // where they were found, for messages
}

// account describes the user and the Keystone of a sign-in; it holds no secret.
type account struct {
	authURL string
	user    string
	project string
	token   bool // signed in with a token, which can't be renewed
	admin   bool // the token that Keystone gave has the role admin
}

// findCredentials reads the cloud named by the caller, or else by OS_CLOUD, from
// clouds.yaml. If neither names one, it uses the OS_* variables. Like the OpenStack
// clients it does not use a clouds.yaml when no cloud is named.
func findCredentials(cloud string) (credentials, error) {
	source := "--os-cloud " + cloud
	if cloud == "" {
		cloud = os.Getenv("OS_CLOUD")
		source = "OS_CLOUD=" + cloud
	}
	var entry clouds.Cloud
	switch {
	case cloud != "":
		files := cloudsFiles()
		found := slices.IndexFunc(files, cloudsFile.isThere)
		if found < 0 {
			return credentials{}, fmt.Errorf("%w: %s names a cloud, and there is no clouds.yaml: looked at %s",
				recover.ErrCredentials, source, describe(files))
		}
		source = fmt.Sprintf("cloud %q of %s", cloud, files[found].path)
		err := files[found].err
		if err == nil {
			entry, err = cloudNamed(files[found], cloud)
		}
		if err != nil {
			return credentials{}, fmt.Errorf("%w: %s: %s", recover.ErrCredentials, source, withoutQuotes(err))
		}
	case os.Getenv("OS_AUTH_URL") != "":
		source = "the OS_* variables"
		entry = cloudOfEnv()
	default:
		return credentials{}, fmt.Errorf("%w: no credentials found. "+
			"Looked for --os-cloud (not given), OS_CLOUD (not set) and OS_AUTH_URL (not set); clouds.yaml: %s. "+
			"Name a cloud of a clouds.yaml with --os-cloud or OS_CLOUD, or set OS_AUTH_URL, OS_USERNAME, OS_PASSWORD, "+
			"OS_PROJECT_NAME, OS_USER_DOMAIN_NAME and OS_PROJECT_DOMAIN_NAME (source an openrc file)",
			recover.ErrCredentials, describe(cloudsFiles()))
	}
	if err := chooseMethod(entry.AuthInfo, string(entry.AuthType)); err != nil {
		return credentials{}, fmt.Errorf("%w: %s: %w", recover.ErrCredentials, source, err)
	}
	entry.Profile, entry.Cloud = "", "" // merged already
	const name = "chosen"
	file, err := json.Marshal(clouds.Clouds{Clouds: map[string]clouds.Cloud{name: entry}}) // JSON is YAML
	if err != nil {
		return credentials{}, fmt.Errorf("%w: %s: %w", recover.ErrCredentials, source, err)
	}
	parse := []clouds.ParseOption{
		clouds.WithCloudName(name), clouds.WithCloudsYAML(bytes.NewReader(file)), clouds.WithSecureYAML(strings.NewReader("{}")),
	}
	// The loader knows OS_INTERFACE, OS_REGION_NAME, OS_CACERT, OS_CERT and OS_KEY.
	if os.Getenv("OS_INTERFACE") == "" && os.Getenv("OS_ENDPOINT_TYPE") != "" {
		parse = append(parse, clouds.WithEndpointType(os.Getenv("OS_ENDPOINT_TYPE")))
	}
	if v := os.Getenv("OS_INSECURE"); v != "" {
		insecure, err := strconv.ParseBool(v)
		if err != nil {
			return credentials{}, fmt.Errorf("%w: OS_INSECURE=%q is neither true nor false", recover.ErrCredentials, v)
		}
		parse = append(parse, clouds.WithInsecure(insecure))
	}
	auth, endpoint, config, err := clouds.Parse(parse...)
	if err != nil {
		return credentials{}, fmt.Errorf("%w: %s: %s", recover.ErrCredentials, source, withoutQuotes(err))
	}
	if !strings.HasPrefix(auth.IdentityEndpoint, "http://") && !strings.HasPrefix(auth.IdentityEndpoint, "https://") {
		return credentials{}, fmt.Errorf("%w: %s: the auth URL %q does not start with http:// or https://",
			recover.ErrCredentials, source, auth.IdentityEndpoint)
	}
	return credentials{auth: settle(auth), endpoint: endpoint, tls: config, source: source}, nil
}

// cloudOfEnv returns the OS_* variables as an entry of clouds.yaml.
//
// openstack.AuthOptionsFromEnv is not used: it does not know OS_USER_DOMAIN_* and
// OS_PROJECT_DOMAIN_*, which every openrc file of Keystone v3 sets, nor OS_TOKEN.
func cloudOfEnv() clouds.Cloud {
	env := func(names ...string) string {
		for _, name := range names {
			if v := os.Getenv(name); v != "" {
				return v
			}
		}
		return ""
	}
	return clouds.Cloud{AuthType: clouds.AuthType(env("OS_AUTH_TYPE")), AuthInfo: &clouds.AuthInfo{
		AuthURL:                     env("OS_AUTH_URL"),
		Token:                       env("OS_TOKEN", "OS_AUTH_TOKEN"),
		Username:                    env("OS_USERNAME"),
		UserID:                      env("OS_USER_ID", "OS_USERID"),
		Password:                    env("OS_PASSWORD"),
		ApplicationCredentialID:     env("OS_APPLICATION_CREDENTIAL_ID"),
		ApplicationCredentialName:   env("OS_APPLICATION_CREDENTIAL_NAME"),
		ApplicationCredentialSecret: env("OS_APPLICATION_CREDENTIAL_SECRET"),
		SystemScope:                 env("OS_SYSTEM_SCOPE"),
		TrustID:                     env("OS_TRUST_ID"),
		ProjectName:                 env("OS_PROJECT_NAME", "OS_TENANT_NAME"),
		ProjectID:                   env("OS_PROJECT_ID", "OS_TENANT_ID"),
		UserDomainName:              env("OS_USER_DOMAIN_NAME"),
		UserDomainID:                env("OS_USER_DOMAIN_ID"),
		ProjectDomainName:           env("OS_PROJECT_DOMAIN_NAME"),
		ProjectDomainID:             env("OS_PROJECT_DOMAIN_ID"),
		DomainName:                  env("OS_DOMAIN_NAME"),
		DomainID:                    env("OS_DOMAIN_ID"),
		DefaultDomain:               env("OS_DEFAULT_DOMAIN"),
	}}
}

// chooseMethod drops the parameters of all ways to sign in but one: the named one, or the one
// for which there is most, an application credential before a password, and that before a
// token, which nothing can renew. An application credential has its project: Keystone
// refuses one beside it.
func chooseMethod(auth *clouds.AuthInfo, method string) error {
	credential := auth.ApplicationCredentialSecret != "" && auth.ApplicationCredentialID+auth.ApplicationCredentialName != ""
	switch method {
	case "":
		switch {
		case credential:
			method = "v3applicationcredential"
		case auth.Password != "":
			method = "password"
		default:
			method = "token"
		}
	case "v3password", "v2password":
		method = "password"
	case "v3token", "v2token", "admin_token":
		method = "token"
	}
	switch method {
	case "v3applicationcredential":
		auth.Password, auth.Token = "", ""
		auth.ProjectID, auth.ProjectName, auth.ProjectDomainID, auth.ProjectDomainName = "", "", "", ""
		auth.DomainID, auth.DomainName, auth.TrustID, auth.SystemScope = "", "", "", ""
		if auth.ApplicationCredentialID != "" {
			auth.ApplicationCredentialName, auth.Username, auth.UserID, auth.UserDomainID, auth.UserDomainName = "", "", "", "", ""
		}
		return nil
	case "password":
		auth.Token = ""
	case "token":
		auth.Password = ""
	default:
		return fmt.Errorf("the authentication type %q is not supported: password, token and v3applicationcredential are", method)
	}
	auth.ApplicationCredentialID, auth.ApplicationCredentialName, auth.ApplicationCredentialSecret = "", "", ""
	return nil
}

// settle drops redundant parameters, which gophercloud refuses and the OpenStack
// clients accept: an ID wins over a name.
func settle(auth gophercloud.AuthOptions) gophercloud.AuthOptions {
	if auth.TokenID != "" {
		auth.Username, auth.UserID, auth.DomainID, auth.DomainName = "", "", "", ""
	}
	if auth.UserID != "" {
		auth.Username, auth.DomainID, auth.DomainName = "", "", ""
	}
	if auth.DomainID != "" {
		auth.DomainName = ""
	}
	auth.AllowReauth = auth.TokenID == ""
	return auth
}

func (c credentials) account() account {
	a := account{authURL: c.auth.IdentityEndpoint, token: c.auth.TokenID != ""}
	switch {
	case a.token:
		a.user = "the owner of a token"
	case c.auth.ApplicationCredentialID != "":
		a.user = "application credential " + c.auth.ApplicationCredentialID
	case c.auth.ApplicationCredentialName != "":
		a.user = "application credential " + c.auth.ApplicationCredentialName
	default:
		a.user = "user " + firstOf(c.auth.Username, c.auth.UserID, "(none)")
		if domain := firstOf(c.auth.DomainName, c.auth.DomainID); domain != "" {
			a.user += " of domain " + domain
		}
		if scope := c.auth.Scope; scope != nil {
			a.project = firstOf(scope.ProjectName, scope.ProjectID)
		}
	}
	return a
}

// String names the user and the requested project.
func (a account) String() string {
	if a.project == "" {
		return a.user
	}
	return a.user + ", project " + a.project
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func describe(files []cloudsFile) string {
	var parts []string
	for _, f := range files {
		var pathError *fs.PathError
		switch {
		case errors.Is(f.err, fs.ErrNotExist):
			parts = append(parts, f.path+" (absent)")
		case errors.As(f.err, &pathError):
			parts = append(parts, fmt.Sprintf("%s (%v)", f.path, pathError.Err))
		case f.err != nil:
			parts = append(parts, f.path+" (no YAML)")
		case len(f.clouds) == 0:
			parts = append(parts, f.path+" (no clouds in it)")
		default:
			parts = append(parts, fmt.Sprintf("%s (with %s)", f.path, strings.Join(f.names(), ", ")))
		}
	}
	return strings.Join(parts, ", ")
}

// withoutQuotes is the error's text without the YAML reader's quotations from the
// file: one of them may be a password in the wrong place.
func withoutQuotes(err error) string {
	return regexp.MustCompile("`[^`]*`").ReplaceAllString(err.Error(), "`...`")
}
