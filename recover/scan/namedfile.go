package scan

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// errNotTold: a backing file's name has a form from which os-rescue can't tell the file.
var errNotTold = errors.New("os-rescue can't tell which file that is")

// namedFile is what a qcow2 header's name of its backing file means.
type namedFile struct {
	path   string // of a file; relative to the image's directory unless it begins with "/". "" for no file
	format string // "" when the name does not say
}

// readBackingName understands the forms that QEMU gives a meaning to: a path, a path with
// "file:" before it, other protocols, and "json:" with the options of a block node
// (bdrv_open_inherit in QEMU's block.c; docs/system/qemu-block-drivers). The guest may have
// written the name, and nothing is opened by it. The error is errNotTold.
func readBackingName(name string) (namedFile, error) {
	if text, ok := strings.CutPrefix(name, "json:"); ok {
		var node map[string]any
		if err := json.Unmarshal([]byte(text), &node); err != nil {
			return namedFile{}, fmt.Errorf("%w: %w", errNotTold, err)
		}
		return readNode(node, 0)
	}
	return readPlainName(name)
}

func readPlainName(name string) (namedFile, error) {
	// As path_has_protocol in QEMU's block.c decides it.
	at := strings.IndexAny(name, ":/")
	if at < 0 || name[at] != ':' {
		return namedFile{path: name}, nil
	}
	switch name[:at] {
	case "file", "host_device", "host_cdrom":
		return absolute(name[at+1:], "")
	case "json":
		return namedFile{}, errNotTold
	}
	return namedFile{}, nil // a protocol's
}

// absolute is the name of a file that QEMU would look for in its working directory if it
// did not begin with "/".
func absolute(path, format string) (namedFile, error) {
	if !strings.HasPrefix(path, "/") {
		return namedFile{}, fmt.Errorf("%w: it is relative to QEMU's working directory", errNotTold)
	}
	return namedFile{path: path, format: format}, nil
}

// maxNodes bounds the nesting of a node's options.
const maxNodes = 4

// readNode reads the options of a block node (BlockdevOptions in QEMU's
// qapi/block-core.json), nested or with dots in their names.
func readNode(node map[string]any, depth int) (namedFile, error) {
	for _, option := range []string{"offset", "size", "backing", "data-file"} {
		if _, ok := node[option]; ok || depth > maxNodes {
			return namedFile{}, fmt.Errorf("%w: it has options (%s) that change what is read", errNotTold, option)
		}
	}
	driver, _ := node["driver"].(string)
	filename, named := node["filename"].(string)
	switch {
	case slices.Contains([]string{"file", "host_device", "host_cdrom"}, driver):
		return absolute(filename, "")
	case driver != "" && !slices.Contains([]string{"raw", "qcow2", "qcow", "qed", "vdi", "vhdx", "vmdk", "vpc", "parallels", "luks"}, driver):
		return namedFile{}, nil // a protocol's, or a filter's
	}
	file, err := child(node)
	if err != nil {
		return namedFile{}, err
	}
	var found namedFile
	switch {
	case file != nil && !named:
		found, err = readNode(file, depth+1)
	case file == nil && named:
		found, err = readPlainName(filename)
		if err == nil && found.path != "" {
			found, err = absolute(found.path, "")
		}
	default:
		err = errNotTold
	}
	if driver != "" {
		found.format = driver
	}
	return found, err
}

// child returns the options of the node below, "file"; nil when there are none.
func child(node map[string]any) (map[string]any, error) {
	nested, isNested := node["file"].(map[string]any)
	if _, ok := node["file"]; ok && !isNested {
		return nil, fmt.Errorf("%w: it names a node of a running QEMU", errNotTold)
	}
	for option, value := range node {
		if rest, ok := strings.CutPrefix(option, "file."); ok {
			if isNested {
				return nil, errNotTold
			}
			if nested == nil {
				nested = map[string]any{}
			}
			nested[rest] = value
		}
	}
	return nested, nil
}
