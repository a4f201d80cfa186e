package nova

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/config/clouds"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/plainfile"
)

// mostYAML is more than a clouds.yaml of a thousand clouds takes, in bytes.
const mostYAML = 4 << 20

// cloudsFile is a clouds.yaml that may exist.
type cloudsFile struct {
	path   string
	rules  plainfile.Rules // for it, and for what is beside it
	err    error
	clouds map[string]any // by name
}

// isThere is true for a file that could be read, whatever is in it.
func (f cloudsFile) isThere() bool {
	var path *fs.PathError
	return !errors.As(f.err, &path)
}

// names returns the names of its clouds.
func (f cloudsFile) names() []string { return slices.Sorted(maps.Keys(f.clouds)) }

// cloudsFiles reads the files in which the OpenStack SDK looks for clouds (its config/loader.py),
// so that an error can say which exist.
func cloudsFiles() []cloudsFile {
	if path := os.Getenv("OS_CLIENT_CONFIG_FILE"); path != "" {
		return []cloudsFile{readClouds(path, "clouds", anywhere())}
	}
	return searched("clouds.yaml", "clouds")
}

// searched reads the files of that name in the SDK's directories. The working directory may be
// anybody's: what others can write there is not used.
func searched(name, section string) []cloudsFile {
	var files []cloudsFile
	if cwd, err := os.Getwd(); err == nil {
		file := readClouds(filepath.Join(cwd, name), section, plainfile.Rules{Ours: true})
		if file.isThere() && !isOursAlone(cwd) {
			file.clouds, file.err = nil, &fs.PathError{Op: "open", Path: file.path, Err: errOthersDirectory}
		}
		files = append(files, file)
	}
	config := os.Getenv("XDG_CONFIG_HOME")
	if home, err := os.UserHomeDir(); config == "" && err == nil {
		config = filepath.Join(home, ".config")
	}
	if config != "" {
		files = append(files, readClouds(filepath.Join(config, "openstack", name), section, anywhere()))
	}
	return append(files, readClouds(filepath.Join("/etc/openstack", name), section, anywhere()))
}

// anywhere are the rules for files in places that are their user's own.
func anywhere() plainfile.Rules { return plainfile.Rules{Symlinks: true} }

var errOthersDirectory = errors.New("others can write its directory")

// isOursAlone is true for a directory in which nobody but root and this process's user can put a
// file of its own, or in another's place.
func isOursAlone(dir string) bool {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return false
	}
	return (st.Uid == 0 || int(st.Uid) == os.Geteuid()) && st.Mode&0o022 == 0
}

func readClouds(path, section string, rules plainfile.Rules) cloudsFile {
	file := cloudsFile{path: path, rules: rules}
	rules.Most = mostYAML
	text, err := plainfile.Read(path, rules)
	if err == nil {
		file.clouds, err = parseClouds(text, section)
	}
	file.err = err
	return file
}

// parseClouds returns the clouds in a section of a clouds.yaml; nil if it has none.
func parseClouds(text []byte, section string) (map[string]any, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil || len(document.Content) == 0 {
		return nil, err
	}
	left := mostNodes
	content, _ := verbatim(document.Content[0], 0, &left).(map[string]any)
	if left < 0 {
		return nil, errTooMuch
	}
	named, _ := content[section].(map[string]any)
	return named, nil
}

const (
	// mostNested is more than the sections of a cloud are nested, aliases included.
	mostNested = 32
	// mostNodes is more than the keys and values of a thousand clouds, aliases included: each
	// of a few lines of YAML can mean ten times what the one before means.
	mostNodes = 100_000
)

var errTooMuch = errors.New("with its aliases, it says more than any clouds.yaml")

// verbatim returns what a YAML document says, with every scalar as it is written: a password of
// digits is none that may become a number. null is nil. left is how many nodes more there may
// be; below 0 the answer is not whole.
func verbatim(node *yaml.Node, depth int, left *int) any {
	if *left--; depth > mostNested || *left < 0 {
		return nil
	}
	switch node.Kind {
	case yaml.AliasNode:
		return verbatim(node.Alias, depth+1, left)
	case yaml.MappingNode:
		all := map[string]any{}
		for n := 0; n+1 < len(node.Content); n += 2 {
			key, value := node.Content[n], verbatim(node.Content[n+1], depth+1, left)
			if below, ok := value.(map[string]any); ok && key.Tag == "!!merge" { // <<: *defaults
				all = merged(below, all)
				continue
			}
			all[key.Value] = value
		}
		return all
	case yaml.SequenceNode:
		var list []any
		for _, one := range node.Content {
			list = append(list, verbatim(one, depth+1, left))
		}
		return list
	}
	if node.Tag == "!!null" {
		return nil
	}
	return node.Value
}

// cloudNamed returns a cloud of a clouds.yaml as the OpenStack SDK reads it: with what
// secure.yaml beside it adds, over its profile of a clouds-public.yaml, with the values of its
// region, and with a secret of the environment where the file has none.
func cloudNamed(file cloudsFile, name string) (clouds.Cloud, error) {
	entry, ok := file.clouds[name].(map[string]any)
	if !ok {
		if _, there := file.clouds[name]; !there {
			return clouds.Cloud{}, fmt.Errorf("it is not there: the file has %s", firstOf(strings.Join(file.names(), ", "), "no clouds"))
		}
		entry = map[string]any{}
	}
	secure := readClouds(filepath.Join(filepath.Dir(file.path), "secure.yaml"), "clouds", file.rules)
	if secure.err != nil && !errors.Is(secure.err, fs.ErrNotExist) {
		return clouds.Cloud{}, fmt.Errorf("secure.yaml: %w", secure.err)
	}
	entry = merged(entry, section(secure.clouds, name))
	profile := firstOf(text(entry["profile"]), text(entry["cloud"]))
	if profile != "" {
		entry = merged(profileNamed(profile), entry)
	}
	entry, err := inRegion(entry)
	if err != nil {
		return clouds.Cloud{}, err
	}
	plain(entry)
	cloud, err := decoded(entry)
	if err != nil {
		return cloud, err
	}
	if cloud.AuthInfo == nil {
		cloud.AuthInfo = &clouds.AuthInfo{}
	}
	env := cloudOfEnv().AuthInfo
	switch auth := cloud.AuthInfo; {
	case auth.AuthURL == "" && env.AuthURL != "":
		cloud.AuthInfo = env
	case auth.AuthURL == "" && profile != "":
		return cloud, fmt.Errorf("neither it nor its profile %s, in a clouds-public.yaml, has an auth_url", profile)
	case auth.AuthURL == "":
		return cloud, errors.New("it has no auth section with an auth_url")
	case auth.Password+auth.ApplicationCredentialSecret+auth.Token == "":
		auth.Password, auth.ApplicationCredentialSecret, auth.Token = env.Password, env.ApplicationCredentialSecret, env.Token
	}
	cloud.AuthType = clouds.AuthType(firstOf(string(cloud.AuthType), os.Getenv("OS_AUTH_TYPE")))
	return cloud, nil
}

func profileNamed(name string) map[string]any {
	for _, f := range searched("clouds-public.yaml", "public-clouds") {
		if f.err == nil {
			return section(f.clouds, name)
		}
	}
	return nil
}

// inRegion merges the values of the chosen region, or of the first one, over a cloud
// (_get_region in the SDK's config/loader.py).
func inRegion(cloud map[string]any) (map[string]any, error) {
	regions, _ := cloud["regions"].([]any)
	wanted := firstOf(os.Getenv("OS_REGION_NAME"), text(cloud["region_name"]))
	delete(cloud, "regions")
	var names []string
	for _, r := range regions {
		region, ok := r.(map[string]any)
		if !ok {
			region = map[string]any{"name": r}
		}
		name := text(region["name"])
		if names = append(names, name); wanted != "" && name != wanted {
			continue
		}
		cloud = merged(cloud, section(region, "values"))
		cloud["region_name"] = name
		return cloud, nil
	}
	if len(regions) > 0 {
		return nil, fmt.Errorf("it has no region %s, but %s", wanted, strings.Join(names, ", "))
	}
	return cloud, nil
}

// plain brings to one form what the SDK accepts in several: quoted booleans, and lists of
// interfaces, of which the first counts.
func plain(cloud map[string]any) {
	for _, key := range []string{"interface", "endpoint_type"} {
		if list, ok := cloud[key].([]any); ok {
			delete(cloud, key)
			if len(list) > 0 {
				cloud[key] = list[0]
			}
		}
	}
	verify, ok := boolean(cloud["verify"])
	delete(cloud, "verify") // also what is neither: then certificates are verified
	if insecure, given := boolean(cloud["insecure"]); given && insecure {
		verify, ok = false, true
	}
	if ok {
		cloud["verify"] = verify
	}
}

// boolean reads a boolean as YAML 1.1 writes it, quoted or not.
func boolean(value any) (is, ok bool) {
	switch strings.ToLower(text(value)) {
	case "true", "yes", "on", "y", "1":
		return true, true
	case "false", "no", "off", "n", "0":
		return false, true
	}
	return false, false
}

func decoded(entry map[string]any) (cloud clouds.Cloud, err error) {
	data, err := yaml.Marshal(entry)
	if err == nil {
		err = yaml.Unmarshal(data, &cloud)
	}
	return cloud, err
}

// merged returns base with over laid on it, in sections too. Neither is changed.
func merged(base, over map[string]any) map[string]any {
	all := maps.Clone(base)
	if all == nil {
		all = map[string]any{}
	}
	for key, value := range over {
		below, isSection := value.(map[string]any)
		if isSection {
			value = merged(section(all, key), below)
		}
		all[key] = value
	}
	return all
}

func section(of map[string]any, key string) map[string]any {
	s, _ := of[key].(map[string]any)
	return s
}

// text is a scalar; empty for everything else.
func text(value any) string {
	s, _ := value.(string)
	return s
}
