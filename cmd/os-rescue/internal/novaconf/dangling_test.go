package novaconf

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A symlink that leads nowhere stands for a file that may come back: nothing goes on without it.
func TestASymlinkThatLeadsNowhereIsNoAbsentConfiguration(t *testing.T) {
	link := func(root, at, to string) {
		at = filepath.Join(root, at)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.Symlink(to, at)); err != nil {
			t.Fatal(err)
		}
	}
	const conf = "etc/nova/nova.conf"
	for what, c := range map[string]struct {
		make func(root string)
		link string // that the error names; empty when there is none
	}{
		"nova.conf":     {func(root string) { link(root, conf, "/srv/gone") }, "/etc/nova/nova.conf"},
		"its directory": {func(root string) { link(root, "etc/nova", "/srv/gone") }, "/etc/nova"},
		"a loop":        {func(root string) { link(root, conf, "nova.conf") }, "/etc/nova/nova.conf"},
		"one before a file": {func(root string) {
			link(root, conf, "gone")
			put(t, root, map[string]string{"etc/nova.conf": def + "a"})
		}, "/etc/nova/nova.conf"},
		"nova-compute.conf":     {func(root string) { link(root, "etc/nova/nova-compute.conf", "gone") }, "/etc/nova/nova-compute.conf"},
		"nova.conf.d":           {func(root string) { link(root, "etc/nova/nova.conf.d", "gone") }, "/etc/nova/nova.conf.d"},
		"a file in nova.conf.d": {func(root string) { link(root, "etc/nova/nova.conf.d/1.conf", "gone") }, "/etc/nova/nova.conf.d/1.conf"},
		"Kolla's": {func(root string) {
			link(root, "etc/kolla/nova-compute/nova.conf", "gone")
		}, "/etc/kolla/nova-compute/nova.conf"},
		"a link to a file": {func(root string) {
			put(t, root, map[string]string{"srv/there": def + "a"})
			link(root, conf, "/srv/there")
		}, ""},
	} {
		t.Run(what, func(t *testing.T) {
			root := t.TempDir()
			if c.make(root); !strings.Contains(what, "Kolla") && what != "its directory" {
				put(t, root, map[string]string{"etc/nova/other": ""})
			}
			got, _, err := Read(t.Context(), Options{Root: root})
			if c.link == "" {
				if err != nil || host(t, got) != "a" {
					t.Errorf("%v, %v", got.Files(), err)
				}
				return
			}
			if !errors.Is(err, errDangling) || !strings.HasPrefix(err.Error(), c.link+" is ") {
				t.Errorf("%v, %v", got.Files(), err)
			}
			if what != "nova.conf" {
				return
			}
			if _, _, err := Read(t.Context(), Options{Root: root, File: "/etc/nova/nova.conf"}); !errors.Is(err, errDangling) {
				t.Errorf("it is named: %v", err)
			}
		})
	}
}

func TestWhatTheRunningNovaComputeReadsMayBeNoSymlinkThatLeadsNowhere(t *testing.T) {
	for _, flag := range []string{"--config-file", "--config-dir"} {
		proc, root, dir := t.TempDir(), t.TempDir(), t.TempDir()
		put(t, root, map[string]string{"etc/nova/nova.conf": def + "other"})
		at := filepath.Join(dir, "link")
		if err := os.Symlink("gone", at); err != nil {
			t.Fatal(err)
		}
		compute(t, proc, dir, nil, flag, "link")
		c, notes, err := Read(t.Context(), Options{Root: root, Proc: proc})
		if !errors.Is(err, errDangling) || !strings.Contains(err.Error(), at+" is ") {
			t.Errorf("%s: %v, %q, %v", flag, c.Files(), notes, err)
		}
	}
}
