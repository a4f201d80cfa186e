package main

import (
	"fmt"
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"
	"libvirt.org/go/libvirt"

	"github.com/os-rescue/os-rescue/cmd/os-rescue/internal/metrics"
)

// build describes a binary.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
	Libvirt string `json:"libvirt"` // the library it was built with
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show the version",
		Long:    `Shows the version of os-rescue, and the versions of Go and libvirt that it was built with.`,
		Example: `  os-rescue version --output json`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b := thisBuild()
			return a.result(b, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "os-rescue %s (commit %s, %s, libvirt %s)\n", b.Version, b.Commit, b.Go, b.Libvirt)
				return err
			})
		},
	}
}

// thisBuild describes this binary.
func thisBuild() build {
	info, _ := debug.ReadBuildInfo()
	return describe(info, libvirt.VERSION_NUMBER)
}

// forMetrics is the part that the metrics show.
func (b build) forMetrics() metrics.Build {
	return metrics.Build{Version: b.Version, Commit: b.Commit, Go: b.Go}
}

// describe reads what the Go toolchain stamped into the binary. libvirtNumber is
// major*1,000,000 + minor*1,000 + release
// (https://libvirt.org/html/libvirt-libvirt-host.html#LIBVIR_VERSION_NUMBER).
func describe(info *debug.BuildInfo, libvirtNumber uint32) build {
	b := build{
		Version: "unknown", Commit: "unknown", Go: "unknown",
		Libvirt: fmt.Sprintf("%d.%d.%d", libvirtNumber/1000000, libvirtNumber/1000%1000, libvirtNumber%1000),
	}
	if info == nil {
		return b
	}
	b.Go = info.GoVersion
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	changed := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			changed = s.Value == "true"
		}
	}
	if changed {
		b.Commit += ", changed"
	}
	return b
}
