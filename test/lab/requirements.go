package lab

import (
	_ "embed"
	"strings"
)

//go:embed packages.txt
var packages string

// Requirements returns the Debian packages that the lab needs, besides Go;
// install.sh installs them.
func Requirements() []string {
	return strings.Fields(packages)
}
