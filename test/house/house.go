package house

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Module is the path of the module whose house this is.
const Module = "github.com/os-rescue/os-rescue"

// Package is one package of the module, as its source files tell.
type Package struct {
	Dir     string      // below the module's root, with slashes
	Name    string      // as its package clause has it
	Doc     string      // the package's comment, from doc.go
	Calls   []string    // the directories of the module's packages that it imports, tests left out
	files   []*ast.File // tests left out
	tests   []*ast.File
	fileSet *token.FileSet
}

// Purpose is the first sentence of the package's comment, without "Package NAME".
func (p Package) Purpose() string {
	text := strings.TrimPrefix(strings.TrimPrefix(p.Doc, "Package "+p.Name+" "), "Command "+p.Name+" ")
	text, _, _ = strings.Cut(strings.ReplaceAll(text, "\n", " "), ". ")
	return strings.TrimSuffix(strings.TrimSpace(text), ".")
}

// MayCall is what the package's comment says after "May call:", as directories.
// ok is false when it says nothing.
func (p Package) MayCall() (dirs []string, ok bool) {
	for paragraph := range strings.SplitSeq(p.Doc, "\n\n") {
		list, found := strings.CutPrefix(strings.ReplaceAll(strings.TrimSpace(paragraph), "\n", " "), "May call: ")
		if !found {
			continue
		}
		if list = strings.TrimSuffix(list, "."); list == "nothing of ours" {
			return nil, true
		}
		for name := range strings.SplitSeq(list, ", ") {
			dirs = append(dirs, directory(name))
		}
		slices.Sort(dirs)
		return dirs, true
	}
	return nil, false
}

// directory is the directory of a package by its name in a list: those below
// recover are called without it.
func directory(name string) string {
	top, _, _ := strings.Cut(name, "/")
	if slices.Contains([]string{"recover", "nova", "hypervisor", "cmd", "test"}, top) {
		return name
	}
	return "recover/" + name
}

// Listed is how a package is called in a list.
func Listed(dir string) string { return strings.TrimPrefix(dir, "recover/") }

// Load reads the packages below the given directories of the module at root.
func Load(root string, below ...string) ([]*Package, error) {
	byDir := map[string]*Package{}
	for _, top := range below {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" {
				return err
			}
			rel, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			p := byDir[filepath.ToSlash(rel)]
			if p == nil {
				p = &Package{Dir: filepath.ToSlash(rel), fileSet: token.NewFileSet()}
				byDir[p.Dir] = p
			}
			return p.add(path)
		})
		if err != nil {
			return nil, err
		}
	}
	return slices.SortedFunc(maps.Values(byDir), func(a, b *Package) int { return strings.Compare(a.Dir, b.Dir) }), nil
}

// add reads one more file of the package.
func (p *Package) add(path string) error {
	file, err := parser.ParseFile(p.fileSet, path, nil, parser.ParseComments)
	if err != nil {
		return err
	}
	if strings.HasSuffix(path, "_test.go") {
		p.tests = append(p.tests, file)
		if p.Name == "" { // it may have nothing but tests
			p.Name = strings.TrimSuffix(file.Name.Name, "_test")
		}
		return nil
	}
	p.files = append(p.files, file)
	p.Name = file.Name.Name
	if filepath.Base(path) == "doc.go" {
		p.Doc = strings.TrimSpace(file.Doc.Text())
	}
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		if dir, ours := strings.CutPrefix(imported, Module+"/"); ours && !slices.Contains(p.Calls, dir) {
			p.Calls = append(p.Calls, dir)
		}
	}
	slices.Sort(p.Calls)
	return nil
}

// Lines returns the number of lines of each of the package's files, tests among them,
// by the file's name.
func (p Package) Lines() map[string]int {
	lines := map[string]int{}
	for _, file := range slices.Concat(p.files, p.tests) {
		source := p.fileSet.File(file.FileStart)
		lines[filepath.Base(source.Name())] = source.LineCount()
	}
	return lines
}

// MethodFiles returns for each of the package's types, by "package.Type", the names of
// the files in which it has methods. The types of its tests are among them: their
// package may be another one, and a type of the same name another type.
func (p Package) MethodFiles() map[string][]string {
	files := map[string][]string{}
	for _, file := range slices.Concat(p.files, p.tests) {
		name := filepath.Base(p.fileSet.Position(file.Pos()).Filename)
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv == nil {
				continue
			}
			receiver := file.Name.Name + "." + baseType(f.Recv.List[0].Type)
			if !slices.Contains(files[receiver], name) {
				files[receiver] = append(files[receiver], name)
			}
		}
	}
	return files
}

// baseType is the name of a receiver's type, without its pointer and its parameters.
func baseType(expr ast.Expr) string {
	switch e := expr.(type) {
	case *ast.StarExpr:
		return baseType(e.X)
	case *ast.IndexExpr:
		return baseType(e.X)
	case *ast.IndexListExpr:
		return baseType(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// Export is an exported name at the top level of a package.
type Export struct {
	Name  string
	Place string // dir/file:line
	// Mentions are the exported names that its declaration mentions, those of its methods
	// among them: who uses the one gets to see the others. Of a constant that is its type.
	Mentions []string
	Constant bool
}

// Exports returns the package's exported names, methods left out.
func (p Package) Exports() []*Export {
	byName := map[string]*Export{}
	// add takes in one declaration of a name. A method is one of its receiver's.
	add := func(name *ast.Ident, mentions ...ast.Node) *Export {
		e := byName[name.Name]
		if e == nil {
			e = &Export{Name: name.Name}
			byName[name.Name] = e
		}
		for _, node := range mentions {
			e.Mentions = append(e.Mentions, exportedIn(node)...)
		}
		return e
	}
	declare := func(name *ast.Ident, mentions ...ast.Node) *Export {
		e := add(name, mentions...)
		at := p.fileSet.Position(name.Pos())
		e.Place = fmt.Sprintf("%s/%s:%d", p.Dir, filepath.Base(at.Filename), at.Line)
		return e
	}
	for _, file := range p.files {
		for _, decl := range file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					declare(d.Name, d.Type)
				} else if d.Name.IsExported() {
					add(ast.NewIdent(baseType(d.Recv.List[0].Type)), d.Type)
				}
			case *ast.GenDecl:
				var kind []ast.Node // the type of constants, which one repeats from the one before
				for _, spec := range d.Specs {
					switch s := spec.(type) {
					case *ast.TypeSpec:
						declare(s.Name, s.Type)
					case *ast.ValueSpec:
						if s.Type != nil {
							kind = []ast.Node{s.Type}
						}
						for _, name := range s.Names {
							declare(name, kind...).Constant = d.Tok == token.CONST
						}
					}
				}
			}
		}
	}
	var list []*Export
	for name, e := range byName {
		if ast.IsExported(name) {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *Export) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// exportedIn returns the exported names below a node.
func exportedIn(node ast.Node) (names []string) {
	ast.Inspect(node, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && id.IsExported() {
			names = append(names, id.Name)
		}
		return true
	})
	return names
}

// Uses returns the names that the package's files, tests among them, use of other packages
// of the module, as "dir.Name".
func (p Package) Uses() map[string]bool {
	used := map[string]bool{}
	for _, file := range slices.Concat(p.files, p.tests) {
		imports := map[string]string{}
		for _, spec := range file.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			dir, ours := strings.CutPrefix(imported, Module+"/")
			if !ours {
				continue
			}
			name := filepath.Base(dir)
			if spec.Name != nil {
				name = spec.Name.Name
			}
			imports[name] = dir
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if selector, ok := n.(*ast.SelectorExpr); ok {
				if id, ok := selector.X.(*ast.Ident); ok && imports[id.Name] != "" && imports[id.Name] != p.Dir {
					used[imports[id.Name]+"."+selector.Sel.Name] = true
				}
			}
			return true
		})
	}
	return used
}

// FromTheGroundUp sorts packages so that each comes after those that it calls, and
// those of one height by name. The imports have no circle: the compiler sees to that.
func FromTheGroundUp(packages []*Package) {
	byDir := map[string]*Package{}
	for _, p := range packages {
		byDir[p.Dir] = p
	}
	heights := map[string]int{}
	var height func(dir string) int
	height = func(dir string) int {
		if h, ok := heights[dir]; ok {
			return h
		}
		h := 0
		if p := byDir[dir]; p != nil {
			for _, below := range p.Calls {
				h = max(h, height(below)+1)
			}
		}
		heights[dir] = h
		return h
	}
	slices.SortFunc(packages, func(a, b *Package) int {
		return cmp.Or(cmp.Compare(height(a.Dir), height(b.Dir)), strings.Compare(a.Dir, b.Dir))
	})
}
