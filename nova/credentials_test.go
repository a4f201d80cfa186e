package nova

import (
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
)

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const cloudsYAML = `
clouds:
  prod:
    auth:
      auth_url: "http://prod.test:5000/v3"
      username: op
      password: "s3same"
      project_name: admin
      user_domain_name: Default
      project_domain_id: default
    region_name: North
    interface: internal
  split:
    auth: {auth_url: "http://split.test:5000/v3", username: op, project_id: p1, user_domain_id: default}
  robot:
    auth_type: v3applicationcredential
    auth: {auth_url: "http://robot.test:5000/v3", application_credential_id: abc, application_credential_secret: "s3same"}
    verify: false
  hollow: {region_name: North}
  regions:
    auth: {auth_url: "http://regions.test:5000/v3", username: op, password: "s3same", project_id: p1, user_domain_id: default}
    interface: [internal, public]
    verify: "False"
    regions:
      - {name: West, values: {auth: {auth_url: "http://west.test:5000/v3"}, interface: admin}}
      - East
  vendor:
    profile: acme
    auth: {username: op, password: "s3same", project_id: p1}
  nobody: {profile: none, auth: {username: op}}
  both:
    auth_type: password
    auth: {auth_url: "http://both.test:5000/v3", username: op, password: "s3same", project_id: p1, user_domain_id: default,
      application_credential_id: abc, application_credential_secret: x}
  careful:
    verify: yes
    auth: {auth_url: "http://c.test:5000/v3", username: op, password: 0123, project_id: 1234e5, user_domain_id: default}
  careless: {insecure: on, auth: &op {auth_url: "http://c.test:5000/v3", username: op, token: t, project_id: p1, user_domain_id: default}}
  merged: {auth: {<<: *op, username: other}}
  kerberos: {auth_type: v3kerberos, auth: {auth_url: "http://k.test:5000/v3"}}
  odd:
    auth: s3same
  nowhere:
    auth: {auth_url: "prod.test:5000", username: op, password: "s3same"}
`

func TestCredentialsAreFoundWhereEveryOpenStackClientLooks(t *testing.T) {
	openrc := map[string]string{"OS_AUTH_URL": "http://env.test:5000/v3", "OS_USERNAME": "u", "OS_PASSWORD": scrubbed,
		"OS_PROJECT_NAME": "p", "OS_USER_DOMAIN_NAME": "D1", "OS_PROJECT_DOMAIN_NAME": "D2"}
	for _, tt := range []struct {
		name  string
		cloud string
		env   map[string]string
		check func(credentials) bool
		words []string // of the error
	}{
		{name: "nothing", words: []string{
			"--os-cloud",
			"OS_CLOUD",
			"OS_AUTH_URL",
			"clouds.yaml (with both, careful, careless, hollow, kerberos, merged, nobody, nowhere, odd, prod, regions, robot, split, vendor)",
			"/etc/openstack/clouds.yaml",
			"openstack/clouds.yaml (absent)",
		}},
		{name: "an openrc file", env: openrc, check: func(c credentials) bool {
			return c.auth.IdentityEndpoint == "http://env.test:5000/v3" &&
				c.auth.Username == "u" && c.auth.DomainName == "D1" && c.auth.AllowReauth &&
				c.auth.Scope.ProjectName == "p" && c.auth.Scope.DomainName == "D2" &&
				c.endpoint.Availability == "public" &&
				c.account().String() == "user u of domain D1, project p"
		}},
		{
			name:  "region and interface of the environment",
			env:   with(openrc, "OS_REGION_NAME", "R", "OS_ENDPOINT_TYPE", "internalURL"),
			check: func(c credentials) bool { return c.endpoint.Region == "R" && c.endpoint.Availability == "internal" },
		},
		{name: "IDs beat names", env: with(openrc, "OS_PROJECT_ID", "pid", "OS_USER_ID", "uid"), check: func(c credentials) bool {
			return c.auth.UserID == "uid" && c.auth.Username == "" && c.auth.DomainName == "" && c.auth.Scope.ProjectID == "pid"
		}},
		{name: "a password beats a token", env: with(openrc, "OS_TOKEN", "t"), check: func(c credentials) bool {
			return c.auth.TokenID == "" && c.auth.AllowReauth
		}},
		{name: "a token alone", env: with(openrc, "OS_TOKEN", "t", "OS_PASSWORD", ""), check: func(c credentials) bool {
			return c.auth.TokenID == "t" && !c.auth.AllowReauth && c.auth.Username == "" && c.auth.DomainName == ""
		}},
		{name: "a named cloud beats the variables", cloud: "prod", env: openrc, check: func(c credentials) bool {
			return c.auth.IdentityEndpoint == "http://prod.test:5000/v3" && c.endpoint.Region == "North" && c.endpoint.Availability == "internal" &&
				c.auth.Scope.DomainID == "default" && c.auth.DomainName == "Default" && !c.tls.InsecureSkipVerify
		}},
		{name: "OS_CLOUD", env: map[string]string{"OS_CLOUD": "robot"}, check: func(c credentials) bool {
			return c.auth.ApplicationCredentialID == "abc" && c.auth.AllowReauth && c.tls.InsecureSkipVerify
		}},
		{name: "the option beats OS_CLOUD", cloud: "prod", env: map[string]string{"OS_CLOUD": "robot"}, check: func(c credentials) bool {
			return c.auth.IdentityEndpoint == "http://prod.test:5000/v3"
		}},
		{name: "secure.yaml", cloud: "split", check: func(c credentials) bool { return c.auth.Password == scrubbed }},
		{
			name:  "OS_INSECURE",
			cloud: "prod",
			env:   map[string]string{"OS_INSECURE": "true"},
			check: func(c credentials) bool { return c.tls.InsecureSkipVerify },
		},
		{
			name:  "OS_INSECURE that is neither",
			cloud: "prod",
			env:   map[string]string{"OS_INSECURE": "perhaps"},
			words: []string{"OS_INSECURE", "perhaps"},
		},
		{name: "an unknown cloud", cloud: "test", words: []string{`cloud "test" of`, "clouds.yaml"}},
		{name: "a cloud without an auth section", cloud: "hollow", words: []string{"hollow", "no auth section"}},
		{name: "a cloud without one, beside an openrc file", cloud: "hollow", env: openrc, check: func(c credentials) bool {
			return c.auth.IdentityEndpoint == "http://env.test:5000/v3" && c.auth.Username == "u" && c.endpoint.Region == "North"
		}},
		{name: "a cloud that is empty", cloud: "odd", words: []string{"odd", "no auth section"}},
		{name: "a password of the environment", cloud: "split", env: map[string]string{"OS_PASSWORD": "other"}, check: func(c credentials) bool {
			return c.auth.Password == scrubbed // that of secure.yaml beats it
		}},
		{name: "the first region, a quoted boolean, a list of interfaces", cloud: "regions", check: func(c credentials) bool {
			return c.auth.IdentityEndpoint == "http://west.test:5000/v3" && c.endpoint.Region == "West" && c.endpoint.Availability == "admin" &&
				c.tls.InsecureSkipVerify && c.auth.Username == "op"
		}},
		{name: "booleans and numbers as they are written", cloud: "careful", check: func(c credentials) bool {
			return !c.tls.InsecureSkipVerify && c.auth.Password == "0123" && c.auth.Scope.ProjectID == "1234e5"
		}},
		{name: "a token of the file, although a password was left over", cloud: "careless", env: map[string]string{"OS_PASSWORD": "other"},
			check: func(c credentials) bool {
				return c.tls.InsecureSkipVerify && c.auth.TokenID == "t" && c.auth.Password == ""
			}},
		{name: "what is merged in YAML", cloud: "merged", env: map[string]string{"OS_AUTH_TYPE": "token"}, check: func(c credentials) bool {
			return c.auth.IdentityEndpoint == "http://c.test:5000/v3" && c.auth.TokenID == "t"
		}},
		{name: "a region by its name", cloud: "regions", env: map[string]string{"OS_REGION_NAME": "East"}, check: func(c credentials) bool {
			return c.auth.IdentityEndpoint == "http://regions.test:5000/v3" && c.endpoint.Region == "East" && c.endpoint.Availability == "internal"
		}},
		{name: "a region that is not there", cloud: "regions", env: map[string]string{"OS_REGION_NAME": "South"},
			words: []string{"no region South", "West, East"}},
		{name: "a profile", cloud: "vendor", check: func(c credentials) bool {
			return c.auth.IdentityEndpoint == "http://acme.test:5000/v3" && c.auth.Username == "op" && c.auth.DomainName == "Acme"
		}},
		{name: "a profile that is not there", cloud: "nobody", words: []string{"profile none", "clouds-public.yaml"}},
		{name: "the type of a cloud", cloud: "both", check: func(c credentials) bool {
			return c.auth.Password == scrubbed && c.auth.ApplicationCredentialID == ""
		}},
		{name: "a type that nobody knows here", cloud: "kerberos", words: []string{"v3kerberos", "v3applicationcredential"}},
		{
			name: "an application credential beats a password that was left over",
			env:  with(openrc, "OS_APPLICATION_CREDENTIAL_ID", "abc", "OS_APPLICATION_CREDENTIAL_SECRET", scrubbed),
			check: func(c credentials) bool {
				return c.auth.ApplicationCredentialID == "abc" && c.auth.Password == "" && c.auth.Scope == nil && c.auth.TenantName == ""
			},
		},
		{
			name: "OS_AUTH_TYPE decides",
			env:  with(openrc, "OS_APPLICATION_CREDENTIAL_ID", "abc", "OS_APPLICATION_CREDENTIAL_SECRET", "x", "OS_AUTH_TYPE", "password"),
			check: func(c credentials) bool {
				return c.auth.ApplicationCredentialID == "" && c.auth.Password == scrubbed && c.auth.Scope.ProjectName == "p"
			},
		},
		{name: "a token, although a password was left over", env: with(openrc, "OS_TOKEN", "t", "OS_AUTH_TYPE", "v3token"),
			check: func(c credentials) bool { return c.auth.TokenID == "t" && c.auth.Password == "" }},
		{name: "an auth URL without http", cloud: "nowhere", words: []string{"prod.test:5000", "http://"}},
		{
			name:  "OS_CLIENT_CONFIG_FILE",
			cloud: "prod",
			env:   map[string]string{"OS_CLIENT_CONFIG_FILE": "/no/such.yaml"},
			words: []string{"--os-cloud prod", "/no/such.yaml (absent)"},
		},
		{name: "a CA file that is missing", cloud: "prod", env: map[string]string{"OS_CACERT": "/no/ca.pem"}, words: []string{"/no/ca.pem"}},
		{name: "a certificate without its key", cloud: "prod", env: map[string]string{"OS_CERT": "/c.pem"}, words: []string{"key is missing"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cleanEnv(t)
			write(t, "clouds.yaml", strings.Replace(cloudsYAML, "  odd:\n    auth: s3same\n", "  odd: {}\n", 1))
			write(t, "clouds-public.yaml",
				`public-clouds: {acme: {auth: {auth_url: "http://acme.test:5000/v3", username: x, user_domain_name: Acme}}}`)
			write(t, "secure.yaml", `clouds: {split: {auth: {password: "`+scrubbed+`"}}}`)
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			c, err := findCredentials(tt.cloud)
			if tt.check == nil {
				mention(t, err, recover.ErrCredentials, tt.words...)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !tt.check(c) {
				t.Errorf("found %+v, scope %+v, endpoint %+v", c.auth, c.auth.Scope, c.endpoint)
			}
		})
	}
}

func with(env map[string]string, more ...string) map[string]string {
	all := map[string]string{}
	for k, v := range env {
		all[k] = v
	}
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	return all
}

func TestAPasswordInTheWrongPlaceOfAFileIsNotQuoted(t *testing.T) {
	cleanEnv(t)
	write(t, "clouds.yaml", cloudsYAML)
	_, err := findCredentials("odd")
	mention(t, err, recover.ErrCredentials, "clouds.yaml")
}

// The working directory may be one that anybody writes to.
func TestAFileOfAnotherUserInTheWorkingDirectoryIsNotUsed(t *testing.T) {
	cleanEnv(t)
	path := write(t, "clouds.yaml", cloudsYAML)
	if err := os.Chown(path, 65534, -1); err != nil {
		t.Fatal(err)
	}
	_, err := findCredentials("prod")
	mention(t, err, recover.ErrCredentials, "belongs to the user 65534")

	cleanEnv(t)
	path = write(t, "clouds.yaml", cloudsYAML)
	if err := os.Rename(path, path+".root"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path+".root", path); err != nil {
		t.Fatal(err)
	}
	_, err = findCredentials("prod")
	mention(t, err, recover.ErrCredentials, "a symlink")

	cleanEnv(t)
	write(t, "clouds.yaml", cloudsYAML)
	if err := os.Chmod(".", 0o777); err != nil {
		t.Fatal(err)
	}
	_, err = findCredentials("prod")
	mention(t, err, recover.ErrCredentials, "others can write its directory")

	cleanEnv(t)
	write(t, "clouds.yaml", cloudsYAML)
	if err := os.Chown(write(t, "secure.yaml", `clouds: {prod: {auth: {auth_url: "http://evil.test/v3"}}}`), 65534, -1); err != nil {
		t.Fatal(err)
	}
	_, err = findCredentials("prod")
	mention(t, err, recover.ErrCredentials, "secure.yaml", "belongs to the user 65534")
}

func TestWhatIsNoFileOfCloudsIsSaidAtOnce(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"a FIFO":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"a device":    func(path string) error { return os.Symlink("/dev/zero", path) },
	} {
		cleanEnv(t)
		path := filepath.Join(t.TempDir(), "clouds.yaml")
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		t.Setenv("OS_CLIENT_CONFIG_FILE", path)
		_, err := findCredentials("prod")
		mention(t, err, recover.ErrCredentials, path, name)
	}
	cleanEnv(t)
	t.Setenv("OS_CLIENT_CONFIG_FILE", write(t, "broken.yaml", "clouds: {prod: [}"))
	_, err := findCredentials("prod")
	mention(t, err, recover.ErrCredentials, "broken.yaml", "yaml")
}

func TestAFileIsNotUsedWhenNoCloudWasNamed(t *testing.T) {
	cleanEnv(t)
	write(t, "clouds.yaml", `clouds: {only: {auth: {auth_url: "http://only.test/v3", username: u, password: s3same}}}`)
	_, err := findCredentials("")
	mention(t, err, recover.ErrCredentials, "clouds.yaml (with only)")
}

func TestIncompleteCredentialsAreSaidBeforeAnythingIsSent(t *testing.T) {
	cleanEnv(t)
	t.Setenv("OS_AUTH_URL", "http://127.0.0.1:1/v3")
	t.Setenv("OS_USERNAME", "u")
	t.Setenv("OS_PASSWORD", scrubbed)
	_, err := Open(t.Context(), quick())
	mention(t, err, recover.ErrCredentials, "incomplete", "http://127.0.0.1:1/v3", "Domain")
}

func TestKeystoneThatCannotBeReachedIsNamed(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	cloud := &cloud{URL: gone.URL, password: scrubbed}
	cloud.use(t, "u", "p")
	opts := quick()
	opts.RetryFor = 20 * time.Millisecond
	_, err := Open(t.Context(), opts)
	mention(t, err, recover.ErrCloudUnavailable, gone.URL, "refused")

	notKeystone := serve(t, http.NotFoundHandler(), nil)
	notKeystone.use(t, "u", "p")
	_, err = Open(t.Context(), opts)
	mention(t, err, recover.ErrCredentials, "no Keystone v3 at "+notKeystone.URL)
}

func TestACertificateThatIsNotTrustedIsSaidAtOnceAndACAFileHelps(t *testing.T) {
	if bed != nil {
		t.Skip("the recording is enough")
	}
	cloud := openCloud(t, "sign-in")
	secure := httptest.NewUnstartedServer(*cloud.handler)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	// The replayer writes http:// into the catalogue.
	inner := *cloud.handler
	secure.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorder := httptest.NewRecorder()
		inner.ServeHTTP(recorder, r)
		for k, v := range recorder.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(recorder.Code)
		w.Write([]byte(strings.ReplaceAll(recorder.Body.String(), "http://"+r.Host, "https://"+r.Host)))
	})
	secure.StartTLS()
	defer secure.Close()
	cloud.URL = secure.URL
	open := func() error {
		opts := quick()
		opts.RetryFor = time.Hour // not used up
		_, err := Open(t.Context(), opts)
		return err
	}
	cloud.use(t, cloud.Vars["admin"], cloud.Vars["admin-project"])
	mention(t, open(), recover.ErrCloudUnavailable, "certificate", "OS_CACERT", secure.URL)
	t.Setenv("OS_INSECURE", "1")
	if err := open(); err != nil {
		t.Errorf("OS_INSECURE: %v", err)
	}
	t.Setenv("OS_INSECURE", "")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	t.Setenv("OS_CACERT", write(t, "ca.pem", string(ca)))
	if err := open(); err != nil {
		t.Errorf("OS_CACERT: %v", err)
	}
	if errors.Is(open(), recover.ErrCredentials) {
		t.Error("refused")
	}
}
