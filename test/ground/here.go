package ground

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Here returns what this program needs to go on: its working directory, its own file,
// the source tree that the working directory is in with its git repository, and Go with
// its modules and caches. Where Go or git is not installed that part is left out.
func Here(ctx context.Context) (Options, error) {
	var o Options
	cwd, err := os.Getwd()
	if err != nil {
		return o, fmt.Errorf("ground: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return o, fmt.Errorf("ground: %w", err)
	}
	o.Dirs = []string{cwd, filepath.Dir(self)}
	for dir := cwd; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			o.Dirs = append(o.Dirs, dir)
		}
	}
	// A work tree's repository may be elsewhere.
	git := exec.CommandContext(ctx, "git", "rev-parse", "--path-format=absolute", "--show-toplevel", "--git-common-dir")
	if out, err := git.Output(); err == nil {
		o.Dirs = append(o.Dirs, strings.Split(strings.TrimSpace(string(out)), "\n")...)
	}
	if home := os.Getenv("HOME"); filepath.IsAbs(home) {
		// git asks there whether it may trust a repository of another user.
		o.Copies = append(o.Copies, filepath.Join(home, ".gitconfig"), filepath.Join(home, ".config/git"))
	}
	return o, o.addGo(ctx)
}

func (o *Options) addGo(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "go", "env", "-json", "GOROOT", "GOMODCACHE", "GOCACHE", "GOENV").Output()
	if err != nil {
		return nil //nolint:nilerr // what has been built needs no Go
	}
	var env struct{ GOROOT, GOMODCACHE, GOCACHE, GOENV string }
	if err := json.Unmarshal(out, &env); err != nil {
		return fmt.Errorf("ground: go env: %w", err)
	}
	o.Path = append(o.Path, filepath.Join(env.GOROOT, "bin"))
	if filepath.IsAbs(env.GOENV) {
		o.Copies = append(o.Copies, env.GOENV)
	}
	for _, dir := range []string{env.GOROOT, env.GOMODCACHE, env.GOCACHE} {
		if dir == "" || dir == "off" {
			continue
		}
		o.Dirs = append(o.Dirs, dir)
		if dir == env.GOROOT {
			continue
		}
		// Go would make them, on the ground and for nobody else.
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("ground: %w", err)
		}
	}
	return nil
}
