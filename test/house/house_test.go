package house_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/test/house"
)

// update has the tests write what they would compare: the table in CONTRIBUTING.md and
// the rules in .golangci.yml.
var update = flag.Bool("update", false, "write the table and the rules anew")

const root = "../.."

// packages are those that are built into the program.
func packages(t *testing.T) []*house.Package {
	t.Helper()
	all, err := house.Load(root, "recover", "nova", "hypervisor", "cmd")
	if err != nil {
		t.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(p *house.Package) bool { return p.Name == "main" })
	house.FromTheGroundUp(all)
	return all
}

func TestEveryPackageSaysWhatItIsForAndCallsNobodyElseThanItSays(t *testing.T) {
	for _, p := range packages(t) {
		allowed, ok := p.MayCall()
		switch {
		case p.Doc == "":
			t.Errorf("%s has no doc.go with a comment", p.Dir)
		case !ok:
			t.Errorf("%s/doc.go does not say \"May call: ...\"", p.Dir)
		case !slices.Equal(allowed, p.Calls):
			t.Errorf("%s/doc.go says it may call %v, and it imports %v", p.Dir, allowed, p.Calls)
		}
	}
}

func TestNobodyCallsUpward(t *testing.T) {
	for _, p := range packages(t) {
		for _, below := range p.Calls {
			top, _, _ := strings.Cut(below, "/")
			if strings.HasPrefix(p.Dir, "recover") && top != "recover" {
				t.Errorf("%s knows %s", p.Dir, below)
			}
			if top == "cmd" && !strings.HasPrefix(p.Dir, "cmd/") {
				t.Errorf("%s knows the command line: %s", p.Dir, below)
			}
			// Only the dispatch knows the ways that a run can go.
			way := slices.Contains([]string{"recover/run/rescue", "recover/run/live"}, below)
			if way && p.Dir != "recover/run" {
				t.Errorf("%s knows %s", p.Dir, below)
			}
		}
	}
}

func TestTheTableOfPackagesIsTrue(t *testing.T) {
	var table strings.Builder
	table.WriteString("| package | what it is for | what it may call |\n|---|---|---|\n")
	for _, p := range packages(t) {
		calls := make([]string, len(p.Calls))
		for n, dir := range p.Calls {
			calls[n] = house.Listed(dir)
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", p.Dir, p.Purpose(), strings.Join(calls, ", "))
	}
	compare(t, "CONTRIBUTING.md", "<!-- packages -->\n", "<!-- end of packages -->", table.String())
}

func TestTheLinterLetsNobodyCallWhomItMayNot(t *testing.T) {
	var rules strings.Builder
	for _, p := range packages(t) {
		allowed, _ := p.MayCall()
		fmt.Fprintf(&rules, "        %s:\n          list-mode: lax\n          files:\n            - \"**/%s/*.go\"\n            - \"!$test\"\n",
			strings.ReplaceAll(p.Dir, "/", "-"), p.Dir)
		if len(allowed) > 0 {
			rules.WriteString("          allow:\n")
		}
		for _, dir := range allowed {
			fmt.Fprintf(&rules, "            - %s/%s$\n", house.Module, dir)
		}
		fmt.Fprintf(&rules, "          deny:\n            - pkg: %s\n              desc: it is not among what %s may call (its doc.go)\n", house.Module, p.Dir)
	}
	compare(t, ".golangci.yml", "        # packages\n", "        # end of packages\n", rules.String())
}

func TestATypeHasItsMethodsInAtMostThreeFiles(t *testing.T) {
	for _, p := range packages(t) {
		for name, files := range p.MethodFiles() {
			if len(files) > 3 {
				t.Errorf("%s.%s has methods in %v", p.Dir, name, files)
			}
		}
	}
}

func TestNobodyExportsWhatOnlyItselfUses(t *testing.T) {
	used := map[string]bool{}
	everybody, err := house.Load(root, "recover", "nova", "hypervisor", "cmd", "test")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range everybody {
		for name := range p.UsedOutside() {
			used[name] = true
		}
	}
	for _, p := range packages(t) {
		exports := p.Exports()
		seen := map[string]bool{}
		for changed := true; changed; {
			changed = false
			for _, e := range exports {
				// A constant is seen with its type, and an error that a comment promises
				// is there for whoever tests for it.
				isError := strings.HasPrefix(e.Name, "Err") || strings.HasSuffix(e.Name, "Error")
				visible := used[p.Dir+"."+e.Name] || isError ||
					e.Constant && slices.ContainsFunc(e.Mentions, func(kind string) bool { return seen[kind] })
				if !visible && !seen[e.Name] {
					continue
				}
				for _, name := range append(e.Mentions, e.Name) {
					changed = changed || !seen[name]
					seen[name] = true
				}
			}
		}
		for _, e := range exports {
			if !seen[e.Name] {
				t.Errorf("%s: nobody outside uses %s.%s", e.Place, p.Name, e.Name)
			}
		}
	}
}

func TestNoFileHoldsMoreThanFiveHundredLines(t *testing.T) {
	for _, top := range []string{"recover", "nova", "hypervisor", "cmd"} {
		paths, err := filepath.Glob(filepath.Join(root, top))
		if err != nil || len(paths) == 0 {
			t.Fatal(err)
		}
		err = filepath.WalkDir(paths[0], func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if n := bytes.Count(text, []byte("\n")); n > 500 {
				t.Errorf("%s has %d lines", path, n)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// compare holds the text between two marks of a file against what it should be, or
// writes that.
func compare(t *testing.T, name, begin, end, want string) {
	t.Helper()
	path := filepath.Join(root, name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	got, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s lacks the marks %q and %q", name, begin, end)
	}
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("%s is not true any more: go test ./test/house -update writes it anew. It has\n%s\nand should have\n%s", name, got, want)
	}
	if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
