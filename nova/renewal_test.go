package nova

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
)

// expire answers 401 to every token that was given out before, until a new one is,
// and gives the tokens names of its own, one for each sign-in.
type expire struct {
	next http.Handler

	mu       sync.Mutex
	valid    string
	original string // what the recording calls it
	signIns  int
	refused  int
}

func (e *expire) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/auth/tokens") && r.Method == http.MethodPost {
		e.next.ServeHTTP(&renaming{ResponseWriter: w, e: e}, r)
		return
	}
	e.mu.Lock()
	ok := r.Header.Get("X-Auth-Token") == e.valid
	original := e.original
	if !ok {
		e.refused++
	}
	e.mu.Unlock()
	if !ok {
		status(http.StatusUnauthorized)(w, r)
		return
	}
	r.Header.Set("X-Auth-Token", original)
	e.next.ServeHTTP(w, r)
}

func (e *expire) expireNow() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.valid = "none"
}

type renaming struct {
	http.ResponseWriter
	e *expire
}

func (r *renaming) WriteHeader(code int) {
	r.e.mu.Lock()
	r.e.signIns++
	r.e.original = r.Header().Get("X-Subject-Token")
	r.e.valid = r.e.original + strings.Repeat("-renewed", r.e.signIns)
	r.Header().Set("X-Subject-Token", r.e.valid)
	r.e.mu.Unlock()
	r.ResponseWriter.WriteHeader(code)
}

func TestATokenThatRanOutIsRenewedOnceAndTheRequestsAreRepeated(t *testing.T) {
	for _, kind := range []string{"password", "application credential"} {
		t.Run(kind, func(t *testing.T) {
			cloud, _ := faultyCloud(t, "application-credential")
			e := &expire{next: *cloud.handler}
			*cloud.handler = e
			cloud.use(t, cloud.Vars["admin"], cloud.Vars["admin-project"])
			if kind == "application credential" {
				cloud.useCredential(t)
			}
			c, err := Open(t.Context(), quick())
			if err != nil {
				t.Fatal(err)
			}
			e.expireNow()
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if err := c.HardReboot(t.Context(), cloud.Vars["web1"]); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if e.signIns != 2 {
				t.Errorf("signed in %d times, want 2", e.signIns)
			}
			if e.refused == 0 {
				t.Error("no request was refused: the test tests nothing")
			}
		})
	}
}

func TestKeystoneAwayWhileATokenIsRenewed(t *testing.T) {
	cloud, _ := faultyCloud(t, "application-credential")
	e := &expire{next: *cloud.handler}
	var mu sync.Mutex
	down := -1
	*cloud.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		wrong := down != 0 && strings.HasSuffix(r.URL.Path, "/auth/tokens") && e.signIns > 0
		if wrong {
			down--
		}
		mu.Unlock()
		if wrong {
			status(503)(w, r)
			return
		}
		e.ServeHTTP(w, r)
	})
	opts := quick()
	opts.RetryFor = 30 * time.Millisecond
	c := cloud.open(t, cloud.Vars["admin"], cloud.Vars["admin-project"], opts)
	e.expireNow()
	err := c.HardReboot(t.Context(), cloud.Vars["web1"])
	mention(t, err, recover.ErrCloudUnavailable, cloud.URL+"/identity/v3/auth/tokens")
	if strings.Contains(err.Error(), "look at the instance") {
		t.Errorf("it was not carried out, and the error says it may be: %v", err)
	}

	// A 401 proves that the reboot was not carried out, so it is asked for again.
	mu.Lock()
	down = 2
	mu.Unlock()
	c.opts.RetryFor = 5 * time.Second
	if err := c.HardReboot(t.Context(), cloud.Vars["web1"]); err != nil {
		t.Error(err)
	}
}

func TestAPasswordThatWasChangedMeanwhileIsSaid(t *testing.T) {
	cloud, _ := faultyCloud(t, "application-credential")
	e := &expire{next: *cloud.handler}
	*cloud.handler = e
	c := cloud.admin(t)
	*cloud.handler = http.HandlerFunc(status(http.StatusUnauthorized))
	_, err := c.LastReboot(t.Context(), cloud.Vars["web1"])
	mention(t, err, recover.ErrCredentials, cloud.URL, cloud.Vars["admin"])
}

func TestATokenAloneIsGoodForASignInAndCannotBeRenewed(t *testing.T) {
	for name, scoped := range map[string]bool{"token-scoped": true, "token": false} {
		t.Run(name, func(t *testing.T) {
			cloud := openCloud(t, name)
			cleanEnv(t)
			t.Setenv("OS_AUTH_URL", cloud.URL+"/identity/v3")
			t.Setenv("OS_TOKEN", cloud.token())
			if scoped {
				t.Setenv("OS_PROJECT_NAME", cloud.Vars["admin-project"])
				t.Setenv("OS_PROJECT_DOMAIN_NAME", "Default")
				t.Setenv("OS_USERNAME", "ignored")
			}
			c, err := Open(t.Context(), quick())
			if err != nil {
				t.Fatal(err)
			}
			if c.OwnProject() != cloud.Vars["admin-project-id"] || !c.Admin() {
				t.Errorf("project %q, admin %v", c.OwnProject(), c.Admin())
			}
			if bed != nil {
				return
			}
			*cloud.handler = http.HandlerFunc(status(http.StatusUnauthorized))
			_, err = c.Server(t.Context(), cloud.Vars["web1"])
			mention(t, err, recover.ErrCredentials, "can't be renewed", "application credential")
		})
	}
}

func TestAnApplicationCredentialSignsIn(t *testing.T) {
	cloud := openCloud(t, "application-credential")
	// The password's sign-in and the reboot are for the renewal's test.
	c := cloud.admin(t)
	if err := c.HardReboot(t.Context(), cloud.Vars["web1"]); err != nil {
		t.Fatal(err)
	}
	sweep(t, c, cloud.Vars["web1"], recover.VMActive)
	if _, err := c.LastReboot(t.Context(), cloud.Vars["web1"]); err != nil {
		t.Fatal(err)
	}
	cloud.useCredential(t)
	c, err := Open(t.Context(), quick())
	if err != nil {
		t.Fatal(err)
	}
	if c.OwnProject() != cloud.Vars["admin-project-id"] {
		t.Errorf("project %q", c.OwnProject())
	}
	if err := c.HardReboot(t.Context(), cloud.Vars["web1"]); err != nil {
		t.Fatal(err)
	}
	sweep(t, c, cloud.Vars["web1"], recover.VMActive)

	t.Setenv("OS_APPLICATION_CREDENTIAL_SECRET", "wrong")
	_, err = Open(t.Context(), quick())
	mention(t, err, recover.ErrCredentials, cloud.Vars["credential"])
}

// useCredential leaves an application credential in the environment and no password.
func (c *cloud) useCredential(t *testing.T) {
	t.Helper()
	cleanEnv(t)
	t.Setenv("OS_AUTH_URL", c.URL+"/identity/v3")
	t.Setenv("OS_APPLICATION_CREDENTIAL_ID", c.Vars["credential"])
	if bed != nil {
		t.Setenv("OS_APPLICATION_CREDENTIAL_SECRET", bed.credentialSecret)
	} else {
		t.Setenv("OS_APPLICATION_CREDENTIAL_SECRET", scrubbed)
	}
}

func (c *cloud) token() string {
	if bed != nil {
		return bed.token
	}
	return "given-token"
}
