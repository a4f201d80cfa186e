package openstack

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// The names of the services, for Bed.Start and Bed.Stop.
const (
	MariaDB       = "mariadb"
	Epmd          = "epmd"
	RabbitMQ      = "rabbitmq"
	Virtlogd      = "virtlogd"
	Libvirtd      = "libvirtd"
	Keystone      = "keystone"
	Placement     = "placement"
	Glance        = "glance"
	Neutron       = "neutron"
	NovaAPI       = "nova-api"
	NovaConductor = "nova-conductor"
	NovaScheduler = "nova-scheduler"
	NovaCompute   = "nova-compute"
)

// newServices returns every service, in the order in which they can be started.
func newServices(dir string, fakes int) []*service {
	etc := func(name string) string { return filepath.Join(dir, "etc", name) }
	run := filepath.Join(dir, "run")
	nova := func(name string, ready func(context.Context) error) *service {
		command := []string{"/usr/bin/" + name, "--config-file", etc("nova.conf")}
		own := "nova-database.conf"
		if name == NovaCompute {
			own = "nova-compute.conf"
		}
		command = append(command, "--config-file", etc(own))
		return &service{name: name, user: "nova", command: command, ready: ready}
	}
	all := []*service{
		{
			name: MariaDB, user: "mysql", ready: accepts("unix", databaseSocket(dir)),
			// The data is not worth a wait for the disk.
			command: []string{
				"/usr/sbin/mariadbd", "--no-defaults", "--datadir=" + filepath.Join(dir, "mysql"),
				"--socket=" + databaseSocket(dir), fmt.Sprintf("--port=%d", databasePort), "--bind-address=127.0.0.1",
				"--pid-file=" + filepath.Join(dir, "mysql", "mariadbd.pid"), "--max-connections=500", "--skip-name-resolve",
				"--innodb-flush-log-at-trx-commit=0", "--skip-innodb-doublewrite", "--sync-frm=0",
			},
		},
		{
			name: Epmd, user: "rabbitmq", ready: accepts("tcp", address(epmdPort)),
			command: []string{"/usr/bin/epmd", "-address", "127.0.0.1", "-port", fmt.Sprint(epmdPort)},
		},
		{
			name: RabbitMQ, user: "rabbitmq", ready: accepts("tcp", address(messagesPort)),
			command: []string{"/usr/lib/rabbitmq/bin/rabbitmq-server"},
			env: []string{
				"HOME=" + filepath.Join(dir, "rabbitmq"),
				"RABBITMQ_NODENAME=bed@localhost",
				"RABBITMQ_CONFIG_FILE=" + etc("rabbitmq"),
				"RABBITMQ_CONF_ENV_FILE=/dev/null",
				"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(dir, "rabbitmq", "plugins"),
				"RABBITMQ_MNESIA_BASE=" + filepath.Join(dir, "rabbitmq"),
				"RABBITMQ_LOG_BASE=" + filepath.Join(dir, "rabbitmq"),
				fmt.Sprintf("RABBITMQ_DIST_PORT=%d", erlangPort),
				fmt.Sprintf("ERL_EPMD_PORT=%d", epmdPort),
				"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
				"RUNNING_UNDER_SYSTEMD=true", // no shell stays in front of it
			},
		},
		{
			name: Virtlogd, ready: accepts("unix", "/run/libvirt/virtlogd-sock"),
			command: []string{"/usr/sbin/virtlogd", "--config", etc("virtlogd.conf"), "--pid-file", filepath.Join(run, "virtlogd.lock")},
		},
		{
			name: Libvirtd, ready: accepts("unix", "/run/libvirt/libvirt-sock"),
			command: []string{"/usr/sbin/libvirtd", "--config", etc("libvirtd.conf"), "--pid-file", filepath.Join(run, "libvirtd.lock")},
		},
		{
			name: Keystone, user: "keystone", ready: answers(keystonePort),
			command: uwsgi(keystonePort, "/usr/bin/keystone-wsgi-public"),
			env:     []string{"OS_KEYSTONE_CONFIG_FILES=" + etc("keystone.conf")},
		},
		{
			name: Placement, user: "placement", ready: answers(placementPort),
			command: uwsgi(placementPort, "/usr/bin/placement-api"),
			env:     []string{"OS_PLACEMENT_CONFIG_DIR=" + etc("")},
		},
		{
			name: Glance, user: "glance", ready: answers(glancePort),
			command: []string{"/usr/bin/glance-api", "--config-file", etc("glance-api.conf")},
		},
		{
			name: Neutron, user: "neutron", ready: answers(neutronPort),
			command: []string{"/usr/bin/neutron-server", "--config-file", etc("neutron.conf")},
		},
		nova(NovaConductor, nil),
		nova(NovaScheduler, nil),
		nova(NovaAPI, answers(novaPort)),
		nova(NovaCompute, nil),
	}
	for n := range fakes {
		all = append(all, newFakeCompute(dir, n+1))
	}
	for _, s := range all {
		s.run, s.log = run, filepath.Join(dir, "log")
	}
	return all
}

// uwsgi serves a WSGI application. Its HTTP socket has no keep-alive, which
// clients must be told.
func uwsgi(port int, application string) []string {
	return []string{
		"/usr/bin/uwsgi", "--plugin", "python3", "--master", "--die-on-term", "--need-app", "--lazy-apps",
		"--processes", "1", "--threads", "4", "--enable-threads", "--thunder-lock",
		"--buffer-size", "65535", "--post-buffering", "1", "--add-header", "Connection: close",
		"--http-socket", address(port), "--wsgi-file", application,
	}
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func databaseSocket(dir string) string { return filepath.Join(dir, "mysql", "socket") }

// accepts is ready when something accepts connections there.
func accepts(network, address string) func(context.Context) error {
	return func(ctx context.Context) error {
		var dialer net.Dialer
		connection, err := dialer.DialContext(ctx, network, address)
		if err == nil {
			connection.Close()
		}
		return err
	}
}

// answers is ready when an API has an answer for somebody without a token.
func answers(port int) func(context.Context) error {
	client := &http.Client{Timeout: patience.Of(20 * time.Second), Transport: &http.Transport{DisableKeepAlives: true}}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url(port, "/"), nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode >= http.StatusInternalServerError {
			return fmt.Errorf("it answers %s", response.Status)
		}
		return nil
	}
}
