package recover

import (
	"path/filepath"
	"strings"
)

// definitionName is the name of the domain's XML, beside its files.
const definitionName = "domain.xml"

// storedName returns the name, below a backup's directory, of the copy of the file at
// path: below the instances directory the path in there, else the whole path in _files.
func storedName(path, instancesPath string) string {
	if isBelow(path, instancesPath) {
		return strings.TrimPrefix(path, strings.TrimSuffix(instancesPath, "/")+"/")
	}
	return filepath.Join("_files", path)
}
