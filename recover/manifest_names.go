package recover

import (
	"path/filepath"
	"strings"
)

// definitionName is the domain's XML, beside its files.
const definitionName = "domain.xml"

// storedName is a file's place below a backup's directory.
func storedName(path, instancesPath string) string {
	if isBelow(path, instancesPath) {
		return strings.TrimPrefix(path, strings.TrimSuffix(instancesPath, "/")+"/")
	}
	return filepath.Join("_files", path)
}
