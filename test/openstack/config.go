package openstack

import (
	"bytes"
	"crypto/rand"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"text/template"
)

//go:embed etc
var etcFiles embed.FS

// Where the services listen, on loopback. The APIs have the ports that clients
// know them by; the others keep clear of what a machine may run anyway.
const (
	keystonePort  = 5000
	novaPort      = 8774
	placementPort = 8778
	glancePort    = 9292
	neutronPort   = 9696

	databasePort = 23306
	epmdPort     = 24369
	messagesPort = 25670
	erlangPort   = 25671
)

const (
	// stateDir is Nova's state_path.
	stateDir = "/var/lib/nova"
	// DefaultInstancesPath is Nova's instances_path unless Options.NovaConf has another.
	DefaultInstancesPath = stateDir + "/instances"
)

const (
	region = "RegionOne"
	// serviceUser is the services' user; its name is its password.
	serviceUser    = "svc"
	serviceProject = "service"
	databaseSecret = "bed"
)

// settings is what the files in etc are made with.
type settings struct{ Dir string }

func (s settings) MessagesPort() int     { return messagesPort }
func (s settings) GlancePort() int       { return glancePort }
func (s settings) NeutronPort() int      { return neutronPort }
func (s settings) NovaPort() int         { return novaPort }
func (s settings) GlanceURL() string     { return url(glancePort, "") }
func (s settings) StateDir() string      { return stateDir }
func (s settings) InstancesPath() string { return DefaultInstancesPath }

// Messages is where RabbitMQ listens.
func (s settings) Messages() string {
	return fmt.Sprintf("rabbit://guest:guest@127.0.0.1:%d/", messagesPort)
}

// Database is the connection to a database, by the user of the same name.
func (s settings) Database(name string) string {
	return fmt.Sprintf("mysql+pymysql://%s:%s@127.0.0.1:%d/%s?charset=utf8", name, databaseSecret, databasePort, name)
}

// Auth is how a service signs in to Keystone.
func (s settings) Auth() string {
	return fmt.Sprintf(`auth_url = %s
www_authenticate_uri = %[1]s
auth_type = password
username = %s
password = %[2]s
project_name = %s
user_domain_name = Default
project_domain_name = Default
region_name = %s`, url(keystonePort, "/v3"), serviceUser, serviceProject, region)
}

func url(port int, path string) string {
	return fmt.Sprintf("http://127.0.0.1:%d%s", port, path)
}

// directories are made below the bed's, each its user's.
func directories() map[string]string {
	return map[string]string{
		"etc": "", "log": "", "run": "", "done": "",
		"mysql": "mysql", "rabbitmq": "rabbitmq",
		"keystone": "keystone", "keystone/fernet": "keystone", "keystone/credential": "keystone",
		"placement": "placement",
		"glance":    "glance", "glance/images": "glance", "glance/staging": "glance", "glance/locks": "glance",
		"neutron": "neutron", "neutron/locks": "neutron",
		"nova": "nova", "nova/locks": "nova",
	}
}

func novaConf(dir string) string { return filepath.Join(dir, "etc", "nova.conf") }

func computeConf(dir string) string { return filepath.Join(dir, "etc", "nova-compute.conf") }

// configure writes the configuration of every service, and Keystone's keys when
// it has none.
func configure(b *Bed) error {
	for path, owner := range directories() {
		if err := makeDir(filepath.Join(b.dir, path), owner); err != nil {
			return err
		}
	}
	for _, path := range []string{stateDir, b.InstancesPath()} {
		if err := makeDir(path, "nova"); err != nil {
			return err
		}
	}
	files, err := configFiles(b)
	if err != nil {
		return err
	}
	if err := stopForNew(b, files["nova.conf"]); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(b.dir, "etc", name), text, 0o644); err != nil {
			return err
		}
	}
	for n := range b.lasting.FakeComputes {
		if err := os.WriteFile(fakeConf(b.dir, n+1), fakeCompute(n+1), 0o644); err != nil {
			return err
		}
	}
	return errors.Join(
		fernetKeys(filepath.Join(b.dir, "keystone", "fernet")),
		fernetKeys(filepath.Join(b.dir, "keystone", "credential")),
	)
}

// configFiles returns the configuration files of a bed, its own nova.conf among them, by name.
func configFiles(b *Bed) (map[string][]byte, error) {
	files, err := render(b.dir)
	if err == nil {
		files["nova.conf"] = append(files["nova.conf"], b.lasting.NovaConf...)
	}
	return files, err
}

// stopForNew stops Nova's services if their nova.conf is to be another one.
func stopForNew(b *Bed, novaConf []byte) error {
	old, err := os.ReadFile(b.NovaConf())
	if errors.Is(err, fs.ErrNotExist) || err == nil && bytes.Equal(old, novaConf) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range b.novaNames() {
		if err := b.service(name).stop(); err != nil {
			return err
		}
	}
	return nil
}

// render returns the configuration files of a bed in dir, by name.
func render(dir string) (map[string][]byte, error) {
	entries, err := etcFiles.ReadDir("etc")
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, entry := range entries {
		t, err := template.ParseFS(etcFiles, "etc/"+entry.Name())
		if err != nil {
			return nil, err
		}
		var text bytes.Buffer
		if err := t.Execute(&text, settings{dir}); err != nil {
			return nil, err
		}
		files[entry.Name()] = text.Bytes()
	}
	return files, nil
}

// fernetKeys makes the keys of a repository of Keystone's as its own
// fernet_setup does: 0 is the staged and 1 the primary key
// (keystone/common/fernet_utils.py).
func fernetKeys(dir string) error {
	for _, name := range []string{"0", "1"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails
		if err := os.WriteFile(path, []byte(base64.URLEncoding.EncodeToString(key)), 0o600); err != nil {
			return err
		}
		if err := chown(path, "keystone"); err != nil {
			return err
		}
	}
	return nil
}

func makeDir(path, owner string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if owner == "" {
		return nil
	}
	return chown(path, owner)
}

func chown(path, owner string) error {
	u, err := user.Lookup(owner)
	if err != nil {
		return fmt.Errorf("openstack: %w: make openstack-packages installs what the bed needs", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	return os.Chown(path, uid, gid)
}
