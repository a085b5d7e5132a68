package repo_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	root   = "../.."
	module = "github.com/evenkeel-go/evenkeel"
)

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// rootPackages are the packages of the root module.
func rootPackages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// goFiles are all Go files of the repository, relative to its root.
func goFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") {
			files = append(files, path)
		}
		return err
	}))
	require.Greater(t, len(files), 50)
	return files
}

func TestRootModuleRequiresFourModules(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "mod", "edit", "-json", filepath.Join(root, "go.mod")).Output()
	require.NoError(t, err)
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
		Replace []any
	}
	require.NoError(t, json.Unmarshal(out, &mod))
	var direct []string
	for _, r := range mod.Require {
		if !r.Indirect {
			direct = append(direct, r.Path)
		}
	}
	require.ElementsMatch(t, []string{
		"github.com/cespare/xxhash/v2", "github.com/stretchr/testify", "golang.org/x/sync", "pgregory.net/rapid",
	}, direct)
	require.Empty(t, mod.Replace)
}

// family is the package of the five that an import path belongs to.
func family(path string) string {
	rest, ok := strings.CutPrefix(path, module+"/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

func TestNoPackageImportsASibling(t *testing.T) {
	t.Parallel()
	for _, p := range rootPackages(t) {
		for _, dep := range p.Imports {
			if f := family(dep); f != "" && f != "internal" {
				require.Equal(t, family(p.ImportPath), f, "%s imports %s", p.ImportPath, dep)
				// What serves HTTP serves both: the limits, and the shedding.
				both := strings.HasSuffix(p.ImportPath, "/ratelimit/httplimit") && strings.HasSuffix(dep, "/ratelimit/shed")
				require.True(t, strings.HasPrefix(p.ImportPath, dep+"/") || strings.Contains(dep, "/internal") || both,
					"%s imports %s, which is not its parent", p.ImportPath, dep)
			}
		}
	}
}

// What a user of a package compiles: nothing but the standard library, xxhash and
// x/sync. The suites that end in "test" are for tests.
func TestNoTestHelperIsReachableFromCode(t *testing.T) {
	t.Parallel()
	for _, p := range rootPackages(t) {
		if strings.HasSuffix(p.ImportPath, "test") {
			continue
		}
		for _, dep := range p.Deps {
			for _, helper := range []string{"testing", "github.com/stretchr/testify", "pgregory.net/rapid"} {
				require.False(t, dep == helper || strings.HasPrefix(dep, helper+"/"), "%s depends on %s", p.ImportPath, dep)
			}
			if first, _, _ := strings.Cut(dep, "/"); strings.Contains(first, ".") && !strings.HasPrefix(dep, module) {
				require.True(t, strings.HasPrefix(dep, "github.com/cespare/xxhash/v2") || strings.HasPrefix(dep, "golang.org/x/sync/"),
					"%s depends on %s", p.ImportPath, dep)
			}
		}
	}
}

func TestEveryPackageIsDocumented(t *testing.T) {
	t.Parallel()
	documented := map[string]bool{}
	for _, file := range goFiles(t) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly|parser.ParseComments)
		require.NoError(t, err)
		dir := filepath.Dir(file)
		documented[dir] = documented[dir] || f.Doc != nil
	}
	for dir, ok := range documented {
		require.True(t, ok, "%s has no package comment", dir)
	}
}

func TestFilesStayShort(t *testing.T) {
	t.Parallel()
	for _, file := range goFiles(t) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.LessOrEqual(t, bytes.Count(text, []byte("\n")), 600, file)
	}
}

func TestFileNamesSayWhatIsInside(t *testing.T) {
	t.Parallel()
	for _, file := range goFiles(t) {
		require.NotContains(t, []string{"util.go", "utils.go", "common.go", "types.go", "helpers.go", "misc.go"}, filepath.Base(file), file)
	}
}

func TestTestsDoNotSleep(t *testing.T) {
	t.Parallel()
	for _, file := range goFiles(t) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		// In a bubble, sleeping takes no time; files that never open one must not sleep.
		if strings.HasSuffix(file, "_test.go") && bytes.Contains(text, []byte("time.Sle"+"ep(")) {
			require.True(t, bytes.Contains(text, []byte("synctest")) || bytes.Contains(text, []byte("SyncTest")), "%s sleeps outside a synctest bubble", file)
		}
	}
}

// The workspace joins every module but those that are outside on purpose.
func TestWorkspaceJoinsEveryModule(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "work", "edit", "-json", filepath.Join(root, "go.work")).Output()
	require.NoError(t, err)
	var work struct {
		Use []struct{ DiskPath string }
	}
	require.NoError(t, json.Unmarshal(out, &work))
	var used []string
	for _, u := range work.Use {
		used = append(used, filepath.Clean(u.DiskPath))
	}
	var found []string
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && d.Name() == ".git" {
			return filepath.SkipDir
		}
		if filepath.Base(path) == "go.mod" {
			rel, err := filepath.Rel(root, filepath.Dir(path))
			require.NoError(t, err)
			found = append(found, rel)
		}
		return err
	}))
	outside := []string{"benchmarks", "benchmarks/gozero", "tools"}
	slices.Sort(used)
	found = slices.DeleteFunc(found, func(m string) bool { return slices.Contains(outside, m) })
	slices.Sort(found)
	require.Equal(t, found, used)
}
