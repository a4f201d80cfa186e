//go:build openstack

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/applicationcredentials"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/domains"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/projects"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/openstack"
)

// What Nova has on another host is listed, with what to run there; named alone it
// is not rescued.
func TestInstancesOfOtherHostsAreListed(t *testing.T) {
	c := newCloud(t)
	guests := c.boot(t, "demo", openstack.Spec{Name: "here"}, openstack.Spec{Name: "there"})
	here, there := guests[0], guests[1]
	host := strings.TrimSpace(mustSQL(t, "nova", "select host from instances where uuid='%s'", here.UUID))
	// Its domain is taken away too, as if it had always been on the other host.
	c.forget(t, there)
	c.sql(t, "update instances set host='compute-2', node='compute-2' where uuid='%s'", there.UUID)
	defer c.sql(t, "update instances set host='%s', node='%s' where uuid='%s'", host, host, there.UUID)
	c.deleteTree(t)
	said := here.beat(t)

	r := c.run(t, 0, "--project", "demo", "--dry-run")
	for _, want := range []string{"compute-2", "os-rescue --project demo"} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("the plan does not say %q:\n%s", want, r.Stdout)
		}
	}
	ran := c.rescue(t, 0, "--project", "demo")
	if len(ran.Elsewhere) != 1 || ran.Elsewhere[0].UUID != there.UUID || ran.Elsewhere[0].Host != "compute-2" || len(ran.Instances) != 1 {
		t.Errorf("the report says %s", asJSON(t, ran))
	}
	here.isBack(t, 1, said)
	alone := c.rescue(t, 1, "--instance", there.UUID)
	if got := of(t, alone, there); got.Outcome != recover.OutcomeSkipped || !strings.Contains(got.Error, "compute-2") {
		t.Errorf("named alone: %s", asJSON(t, alone))
	}
}

// A cell whose database does not answer makes its instances unknown. Lists, which
// Nova 26 answers only after a minute then, are shown by package nova's recordings.
func TestInstancesOfACellThatIsDownAreUnknown(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	c.deleteTree(t)
	if err := bed.CellDown(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := bed.CellUp(context.Background()); err != nil {
			t.Error(err)
		}
	}()

	ran := c.rescue(t, 1, "--instance", g.UUID)
	if got := of(t, ran, g); got.Outcome != recover.OutcomeSkipped || !strings.Contains(got.Error, "cell") {
		t.Errorf("the report says %s", asJSON(t, ran))
	}
	g.unharmed(t)
	g.onDeletedFiles(t)
}

// Nova has it here and running, and libvirt does not know it: that loses nothing while its
// files are whole, and a hard reboot defines it anew. Without them it is lost.
func TestAnInstanceWithNoDomainIsIntactWhileItsFilesAre(t *testing.T) {
	c := newCloud(t)
	guests := c.boot(t, "demo", openstack.Spec{Name: "web"}, openstack.Spec{Name: "lost"})
	web, lost := guests[0], guests[1]
	said := web.beat(t)
	c.forget(t, web)
	ran := c.rescue(t, 0, "--instance", web.UUID)
	if got := of(t, ran, web); got.Outcome != recover.OutcomeIntact {
		t.Errorf("the report says %s", asJSON(t, ran))
	}
	ran = c.rescue(t, 0, "reboot", "--instance", web.UUID, "--state", "ACTIVE,SHUTOFF,ERROR")
	if got := of(t, ran, web); got.Outcome != recover.OutcomeRescued {
		t.Errorf("the reboot's report says %s", asJSON(t, ran))
	}
	web.isBack(t, 1, said)

	c.forget(t, lost)
	if err := os.RemoveAll(lost.Dir); err != nil {
		t.Fatal(err)
	}
	ran = c.rescue(t, 1, "--instance", lost.UUID)
	if got := of(t, ran, lost); got.Outcome != recover.OutcomeSkipped || !strings.Contains(got.Error, "libvirt does not know its domain") {
		t.Errorf("the report says %s", asJSON(t, ran))
	}
}

// Two projects of one name: the ID or the Keystone domain tells which.
func TestAnAmbiguousProjectNeedsItsDomain(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	identity := c.admin.Identity
	enabled, disabled := true, false
	domain, err := domains.Create(t.Context(), identity, domains.CreateOpts{Name: "branch", Enabled: &enabled}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_, _ = domains.Update(t.Context(), identity, domain.ID, domains.UpdateOpts{Enabled: &disabled}).Extract()
		_ = domains.Delete(t.Context(), identity, domain.ID).ExtractErr()
	}()
	if _, err := projects.Create(t.Context(), identity, projects.CreateOpts{Name: "demo", DomainID: domain.ID}).Extract(); err != nil {
		t.Fatal(err)
	}
	r := c.run(t, 2, "--project", "demo", "--yes")
	if !strings.Contains(r.Stderr, "ambiguous") || !strings.Contains(r.Stderr, domain.ID) {
		t.Errorf("it says:\n%s", r.Stderr)
	}
	c.rescue(t, 0, "--project", "demo", "--project-domain", "Default")
	r = c.run(t, 2, "--project", "demo", "--project-domain", "branch", "--yes")
	if !strings.Contains(r.Stderr, "no instances") {
		t.Errorf("it says:\n%s", r.Stderr)
	}
	c.rescue(t, 0, "--project", g.ProjectID)
	if r := c.run(t, 2, "--project", "nobody", "--yes"); !strings.Contains(r.Stderr, "nobody") {
		t.Errorf("it says:\n%s", r.Stderr)
	}
}

func TestSignInFailuresSayWhatToDo(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	home := t.TempDir()
	bare := func(env []string, args ...string) string {
		t.Helper()
		cleared := []string{"HOME=" + home}
		for _, v := range bed.Env(openstack.Rescuer, openstack.RescueProject) {
			name, _, _ := strings.Cut(v, "=")
			cleared = append(cleared, name+"=")
		}
		return ends(t, c.start(t, append(cleared, env...), append(args, "--project", "demo", "--yes")...), 3, args...).Stderr
	}
	if said := bare(nil); !strings.Contains(said, "OS_CLOUD") ||
		!strings.Contains(said, "clouds.yaml") || !strings.Contains(said, "OS_AUTH_URL") {
		t.Errorf("without credentials it says:\n%s", said)
	}
	wrong := append(bed.Env(openstack.Rescuer, openstack.RescueProject), "OS_PASSWORD=open-sesame")
	if said := bare(wrong); !strings.Contains(said, openstack.Rescuer) || strings.Contains(said, "open-sesame") {
		t.Errorf("with a wrong password it says:\n%s", said)
	}
	// A member of one project may not see another's instances.
	if said := bare(bed.Env("demo", "demo")); !strings.Contains(said, "admin") || !strings.Contains(said, "polic") {
		t.Errorf("without the role it says:\n%s", said)
	}
	// The owner's project's own admin would only make an owner's lock.
	c.deleteTree(t)
	r := ends(t, c.start(t, bed.Env("admin", "demo"), "--instance", g.UUID, "--yes"), 1)
	if !strings.Contains(r.Stdout, "own project") {
		t.Errorf("in the instance's own project it says:\n%s", r.Stdout)
	}
	g.unharmed(t)
}

// clouds.yaml with its secrets in secure.yaml, and an application credential.
func TestSignInByCloudsYAML(t *testing.T) {
	c := newCloud(t)
	g := c.boot(t, "demo", openstack.Spec{Name: "web"})[0]
	said := g.beat(t)
	c.deleteTree(t)
	rescuer, err := bed.Client(t.Context(), openstack.Rescuer, openstack.RescueProject)
	if err != nil {
		t.Fatal(err)
	}
	user, err := tokens.Get(t.Context(), rescuer.Identity, rescuer.Identity.Token()).ExtractUser()
	if err != nil {
		t.Fatal(err)
	}
	shift := applicationcredentials.CreateOpts{Name: "night shift"}
	credential, err := applicationcredentials.Create(t.Context(), rescuer.Identity, user.ID, shift).Extract()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	dir := filepath.Join(home, ".config", "openstack")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "clouds.yaml"), `clouds:
  bed:
    auth_type: v3applicationcredential
    auth:
      auth_url: `+rescuer.Identity.IdentityEndpoint+`
      application_credential_id: `+credential.ID+`
    region_name: RegionOne
    interface: public
`)
	write(t, filepath.Join(dir, "secure.yaml"), `clouds:
  bed:
    auth:
      application_credential_secret: `+credential.Secret+`
`)
	env := []string{
		"HOME=" + home, "OS_AUTH_URL=", "OS_USERNAME=", "OS_PASSWORD=", "OS_PROJECT_NAME=",
		"OS_USER_DOMAIN_NAME=", "OS_PROJECT_DOMAIN_NAME=", "OS_REGION_NAME=", "OS_IDENTITY_API_VERSION=",
	}
	r := ends(t, c.start(t, env, "--os-cloud", "bed", "--project", "demo", "--yes", "--log-level", "debug"), 0)
	if strings.Contains(r.Stdout+r.Stderr, credential.Secret) {
		t.Error("the secret is in the output")
	}
	g.isBack(t, 1, said)
	c.inService(t, g)
}
