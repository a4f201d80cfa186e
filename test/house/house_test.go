package house_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/os-rescue/os-rescue/test/house"
)

// update has the tests write what they would compare: the table in CONTRIBUTING.md and
// the rules in .golangci.yml.
var update = flag.Bool("update", false, "write the table and the rules anew")

const root = "../.."

var (
	// program are the directories of what is built into the program.
	program = []string{"recover", "nova", "hypervisor", "cmd"}
	// module are those of everything, whatever tags it is built with.
	module = append([]string{"test"}, program...)
)

// load returns the packages below directories, each after those that it calls.
func load(t *testing.T, below ...string) []*house.Package {
	t.Helper()
	packages, err := house.Load(root, below...)
	if err != nil {
		t.Fatal(err)
	}
	house.FromTheGroundUp(packages)
	return packages
}

// packages are those of the program that others can import.
func packages(t *testing.T) []*house.Package {
	t.Helper()
	return slices.DeleteFunc(load(t, program...), func(p *house.Package) bool { return p.Name == "main" })
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
		line := func(indent int, format string, args ...any) {
			fmt.Fprintf(&rules, strings.Repeat(" ", indent)+format+"\n", args...)
		}
		line(8, "%s:", strings.ReplaceAll(p.Dir, "/", "-"))
		line(10, "list-mode: lax")
		line(10, "files:")
		line(12, `- "**/%s/*.go"`, p.Dir)
		line(12, `- "!$test"`)
		if len(allowed) > 0 {
			line(10, "allow:")
		}
		for _, dir := range allowed {
			line(12, "- %s/%s$", house.Module, dir)
		}
		line(10, "deny:")
		line(12, "- pkg: %s", house.Module)
		line(14, "desc: it is not among what %s may call (its doc.go)", p.Dir)
	}
	compare(t, ".golangci.yml", "        # packages\n", "        # end of packages\n", rules.String())
}

func TestATypeHasItsMethodsInAtMostThreeFiles(t *testing.T) {
	for _, p := range load(t, module...) {
		for name, files := range p.MethodFiles() {
			if len(files) > 3 {
				t.Errorf("%s: %s has methods in %v", p.Dir, name, files)
			}
		}
	}
}

func TestNobodyExportsWhatOnlyItselfUses(t *testing.T) {
	used := map[string]bool{}
	for _, p := range load(t, module...) {
		maps.Copy(used, p.Uses())
	}
	for _, p := range packages(t) {
		exports := p.Exports()
		seen := map[string]bool{} // by others
		for changed := true; changed; {
			changed = false
			for _, e := range exports {
				// A constant is seen with its type, and an error that a comment promises
				// is there for whoever tests for it.
				isError := strings.HasPrefix(e.Name, "Err") || strings.HasSuffix(e.Name, "Error")
				withType := e.Constant && slices.ContainsFunc(e.Mentions, func(kind string) bool { return seen[kind] })
				if !seen[e.Name] && !used[p.Dir+"."+e.Name] && !isError && !withType {
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
	for _, p := range load(t, module...) {
		for name, lines := range p.Lines() {
			if lines > 500 {
				t.Errorf("%s/%s has %d lines", p.Dir, name, lines)
			}
		}
	}
}

func TestTheTestsThatSecurityNamesExist(t *testing.T) {
	text, err := os.ReadFile(root + "/SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	exists := map[string]bool{}
	for _, p := range load(t, module...) {
		files, err := filepath.Glob(filepath.Join(root, p.Dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			code, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllSubmatch(code, -1) {
				exists[string(f[1])] = true
			}
		}
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllSubmatch(text, -1)
	for _, n := range named {
		if !exists[string(n[1])] {
			t.Errorf("SECURITY.md names %s, which is nowhere", n[1])
		}
	}
	if len(named) < 20 {
		t.Errorf("it names %d tests", len(named))
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
		diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n"))
		t.Fatalf("%s is not true any more: go test ./test/house -update writes it anew (-want +got):\n%s", name, diff)
	}
	if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
