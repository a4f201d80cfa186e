//go:build openstack

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/test/lab"
	"github.com/os-rescue/os-rescue/test/lab/patience"
	"github.com/os-rescue/os-rescue/test/openstack"
)

// cloud is the bed as one case finds it: no instances, an empty tree, every
// service up, and a state directory of os-rescue's that nobody else has.
type cloud struct {
	admin    *openstack.Client
	stateDir string
	config   string // os-rescue's configuration file
}

// newCloud makes the bed ready for a case, and leaves it so behind it.
func newCloud(t *testing.T) *cloud {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	c := &cloud{stateDir: filepath.Join(dir, "state"), config: filepath.Join(dir, "os-rescue.yaml")}
	write(t, c.config, fmt.Sprintf("state_dir: %s\n", c.stateDir)) // nova.conf is found
	if err := c.clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s", c.lastWords())
		}
		if err := errors.Join(c.clean(context.Background()), os.RemoveAll(dir)); err != nil {
			t.Errorf("the bed is not clean for the next case: %v", err)
		}
	})
	return c
}

// clean ends what a case may have left: os-rescue's processes, services that it
// stopped, instances, files.
func (c *cloud) clean(ctx context.Context) error {
	if err := endRescues(); err != nil {
		return err
	}
	for _, name := range bed.Services() {
		if _, err := bed.PID(name); errors.Is(err, openstack.ErrDown) {
			err = bed.Start(ctx, name)
			if err != nil {
				return err
			}
		}
	}
	var err error
	if c.admin, err = bed.Admin(ctx); err != nil {
		return err
	}
	if err := c.admin.DeleteAll(ctx); err != nil {
		return err
	}
	// Nova leaves the domain of an instance that it deleted with nova-compute down.
	if err := bed.EndDomains(ctx); err != nil {
		return err
	}
	return bed.DeleteTree()
}

// endRescues kills every process of the os-rescue that the cases use: runs that
// have not ended, and keepers.
func endRescues() error {
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return err
	}
	for _, link := range links {
		if program, err := os.Readlink(link); err != nil || program != binary {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(link, "/proc/%d/exe", &pid); err != nil {
			return err
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}

// lastWords is what a stranger needs to see of a case that failed.
func (c *cloud) lastWords() string {
	var out strings.Builder
	for _, name := range []string{openstack.NovaCompute, openstack.NovaAPI} {
		body, err := os.ReadFile(bed.Log(name))
		if err != nil {
			body = []byte(err.Error())
		}
		lines := strings.Split(strings.TrimSpace(string(body)), "\n")
		fmt.Fprintf(&out, "--- %s\n%s\n", name, strings.Join(lines[max(0, len(lines)-12):], "\n"))
	}
	return out.String()
}

// as signs a project's own user in.
func (c *cloud) as(t *testing.T, project string) *openstack.Client {
	t.Helper()
	client, err := bed.Client(t.Context(), project, project)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// boot boots an instance of a project's for each spec, all at the same time, and
// waits until their guests are up.
func (c *cloud) boot(t *testing.T, project string, specs ...openstack.Spec) []*guest {
	t.Helper()
	owner := c.as(t, project)
	var guests []*guest
	for _, spec := range specs {
		i, err := owner.Create(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		guests = append(guests, &guest{Instance: i, owner: owner, boots: 1})
	}
	for _, g := range guests {
		if err := g.AwaitUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		first := g.last(t)
		g.sum, g.disks = first.SHA256, len(first.Disks)
	}
	return guests
}

// deleteTree does what the accident does.
func (c *cloud) deleteTree(t *testing.T) {
	t.Helper()
	if err := bed.DeleteTree(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(bed.InstancesPath())
	if err != nil || len(entries) != 0 {
		t.Fatalf("the instances are not deleted: %v %v", entries, err)
	}
}

// forget takes an instance's domain away from libvirt.
func (c *cloud) forget(t *testing.T, g *guest) {
	t.Helper()
	for _, word := range []string{"destroy", "undefine"} {
		if out, err := exec.Command("virsh", "-q", "-c", "qemu:///system", word, g.Domain).CombinedOutput(); err != nil {
			t.Fatalf("virsh %s: %v: %s", word, err, out)
		}
	}
}

func (c *cloud) stop(t *testing.T, service string) {
	t.Helper()
	if err := bed.Stop(t.Context(), service); err != nil {
		t.Fatal(err)
	}
}

// startAgain starts a service that was stopped.
func (c *cloud) startAgain(t *testing.T, service string) {
	t.Helper()
	if err := bed.Start(t.Context(), service); err != nil {
		t.Fatal(err)
	}
}

// sql changes what Nova's database says of an instance.
func (c *cloud) sql(t *testing.T, statement string, args ...any) {
	t.Helper()
	mustSQL(t, "nova", statement, args...)
}

// start starts os-rescue as the user who is meant to run it, and does not wait.
func (c *cloud) start(t *testing.T, env []string, args ...string) *lab.Process {
	t.Helper()
	env = append(bed.Env(openstack.Rescuer, openstack.RescueProject), env...)
	return lab.StartProcess(t, "/", env, binary, append(args, "--config", c.config)...)
}

// run runs os-rescue and fails the case unless it ends with that exit code.
func (c *cloud) run(t *testing.T, code int, args ...string) lab.Result {
	t.Helper()
	return ends(t, c.start(t, nil, args...), code, args...)
}

func ends(t *testing.T, p *lab.Process, code int, args ...string) lab.Result {
	t.Helper()
	r := p.Wait(t)
	if r.Code != code {
		t.Fatalf("os-rescue %s: exit code %d, want %d\nstdout:\n%s\nstderr:\n%s", strings.Join(args, " "), r.Code, code, r.Stdout, r.Stderr)
	}
	return r
}

// rescue runs a rescue that asks nobody, and returns its report.
func (c *cloud) rescue(t *testing.T, code int, args ...string) recover.RunReport {
	t.Helper()
	var report recover.RunReport
	decode(t, c.run(t, code, append(args, "--yes", "--output", "json")...).Stdout, &report)
	return report
}

// scan returns what os-rescue scan says, by UUID.
func (c *cloud) scan(t *testing.T) map[string]recover.Instance {
	t.Helper()
	var report recover.Report
	decode(t, c.run(t, 0, "scan", "--output", "json").Stdout, &report)
	found := map[string]recover.Instance{}
	for _, i := range report.Instances {
		found[i.UUID] = i
	}
	return found
}

// newestRun returns what os-rescue status says of the newest run.
func (c *cloud) newestRun(t *testing.T) recover.RunStatus {
	t.Helper()
	var overview struct {
		Runs []recover.RunStatus `json:"runs"`
	}
	decode(t, c.run(t, 0, "status", "--output", "json").Stdout, &overview)
	if len(overview.Runs) == 0 {
		t.Fatal("no run is known")
	}
	return overview.Runs[0]
}

// at lets os-rescue come to a point of its journal, does something there, and
// lets it go on to its end.
func (c *cloud) at(t *testing.T, point string, do func(), args ...string) lab.Result {
	t.Helper()
	return lab.At(t, point, func(env []string) *lab.Process { return c.start(t, env, args...) }, do)
}

// of returns what a report says of one instance.
func of(t *testing.T, r recover.RunReport, g *guest) recover.InstanceReport {
	t.Helper()
	for _, i := range r.Instances {
		if i.UUID == g.UUID {
			return i
		}
	}
	t.Fatalf("the report has nothing on %s: %+v", g.Name, r)
	return recover.InstanceReport{}
}

func waitFor(t *testing.T, what string, f func() error) {
	t.Helper()
	limit := patience.Limit()
	for end := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not in %s: %v", what, limit, err)
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func decode(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("no JSON: %v\n%s", err, text)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
