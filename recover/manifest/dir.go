package manifest

import (
	"path/filepath"
	"strings"

	"github.com/os-rescue/os-rescue/recover"
)

// DefinitionName is the name of the domain's XML, beside its files.
const DefinitionName = "domain.xml"

// StoredName returns the path, below a backup's directory, of the copy of the file at
// path: the path below instancesPath, or for a file elsewhere its whole path below
// _files.
func StoredName(path, instancesPath string) string {
	if recover.IsBelow(path, instancesPath) {
		return strings.TrimPrefix(path, strings.TrimSuffix(instancesPath, "/")+"/")
	}
	return filepath.Join("_files", path)
}
