//go:build unix

package topo_test

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/topo"
	"github.com/evenkeel-go/evenkeel/shard/topo/topotest"
)

const poll = 5 * time.Millisecond

func openFile(t testing.TB, path string) *topo.File {
	t.Helper()
	f, err := topo.NewFile(path, topo.FileOptions{Poll: poll})
	require.NoError(t, err)
	return f
}

func filePlace(t testing.TB) topotest.Place {
	folder := t.TempDir()
	path := filepath.Join(folder, "shards.json")
	return topotest.Place{
		Open:     func(t testing.TB) topo.Store { return openFile(t, path) },
		Neighbor: func(t testing.TB) topo.Store { return openFile(t, filepath.Join(folder, "shards")) },
		Corrupt:  func(t testing.TB, text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) },
		Restore: func(t testing.TB, text string) {
			require.NoError(t, os.WriteFile(path+".backup", []byte(text), 0o600))
			require.NoError(t, os.Rename(path+".backup", path))
		},
		Delete: func(t testing.TB) { require.NoError(t, os.Remove(path)) },
		Where:  path,
		Block:  func(t testing.TB) func() { return topo.LockFile(t, path+".lock") },
	}
}

func TestFileIsAStore(t *testing.T) {
	t.Parallel()
	topotest.Run(t, filePlace)
}

func TestNewFileRefusesOptions(t *testing.T) {
	t.Parallel()
	_, err := topo.NewFile("", topo.FileOptions{})
	require.ErrorContains(t, err, "path")
	for _, poll := range []time.Duration{-1, time.Millisecond - 1} {
		_, err = topo.NewFile("shards.json", topo.FileOptions{Poll: poll})
		require.ErrorContains(t, err, "FileOptions.Poll is "+poll.String()+", expected")
	}
}

// What is at the path and is no file is an error, at once, and nothing is put over it.
func TestFileRefusesWhatIsNoFile(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	pipe := filepath.Join(folder, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	for _, path := range []string{folder, pipe, filepath.Join(pipe, "shards.json")} {
		f := openFile(t, path)
		_, err := f.Load(t.Context())
		require.ErrorContains(t, err, path)
		require.NotErrorIs(t, err, topo.ErrNoMap)
		require.ErrorContains(t, f.Publish(t.Context(), topotest.NewMap(t, 1, 2, "db")), path)
		require.ErrorContains(t, topotest.Watch(t, f).AnyError(), path)
	}
}

func TestFileWithoutAFolder(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "later")
	f := openFile(t, filepath.Join(folder, "shards.json"))
	_, err := f.Load(t.Context())
	require.ErrorIs(t, err, topo.ErrNoMap)
	require.ErrorContains(t, f.Publish(t.Context(), topotest.NewMap(t, 1, 2, "db")), f.Path())
	w := topotest.Watch(t, f)
	w.UntilError(topo.ErrNoMap)
	require.NoError(t, os.Mkdir(folder, 0o700))
	require.NoError(t, f.Publish(t.Context(), topotest.NewMap(t, 1, 2, "db")))
	w.Until(1)
}

// Publish leaves the map, its lock and nothing else, keeps the permissions, and replaces
// what a killed publisher left, be it a link to elsewhere.
func TestFilePublishLeavesOrder(t *testing.T) {
	t.Parallel()
	folder, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "elsewhere")
	path := filepath.Join(folder, "shards.json")
	require.NoError(t, os.WriteFile(elsewhere, []byte("precious"), 0o600))
	require.NoError(t, os.Symlink(elsewhere, path+".tmp"))
	f := openFile(t, path)
	require.NoError(t, f.Publish(t.Context(), topotest.NewMap(t, 1, 2, "db")))
	text, err := os.ReadFile(elsewhere)
	require.NoError(t, err)
	require.Equal(t, "precious", string(text))

	require.NoError(t, os.Chmod(path, 0o640))
	require.NoError(t, os.WriteFile(path+".tmp", []byte("half a ma"), 0o600))
	require.NoError(t, f.Publish(t.Context(), topotest.NewMap(t, 2, 2, "db")))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), info.Mode())
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	require.Equal(t, "shards.json", entries[0].Name())
	require.Equal(t, "shards.json.lock", entries[1].Name())
}

// A refused map does not touch the file.
func TestFileRefusedMapWritesNothing(t *testing.T) {
	t.Parallel()
	f := openFile(t, filepath.Join(t.TempDir(), "shards.json"))
	require.NoError(t, f.Publish(t.Context(), topotest.NewMap(t, 5, 2, "db")))
	before, err := os.Stat(f.Path())
	require.NoError(t, err)
	require.NoError(t, f.Publish(t.Context(), topotest.NewMap(t, 5, 2, "db")))
	require.Error(t, f.Publish(t.Context(), topotest.NewMap(t, 5, 2, "other")))
	require.Error(t, f.Publish(t.Context(), topotest.NewMap(t, 4, 2, "db")))
	after, err := os.Stat(f.Path())
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after), "it is the same file")
	require.Equal(t, before.ModTime(), after.ModTime())
}

// An edit that leaves length, time and inode as they were is noticed.
func TestFileWatchReadsTheContent(t *testing.T) {
	t.Parallel()
	f := openFile(t, filepath.Join(t.TempDir(), "shards.json"))
	require.NoError(t, f.Publish(t.Context(), topotest.NewMap(t, 1, 2, "db")))
	w := topotest.Watch(t, f)
	w.Until(1)
	info, err := os.Stat(f.Path())
	require.NoError(t, err)
	text, err := os.ReadFile(f.Path())
	require.NoError(t, err)
	file, err := os.OpenFile(f.Path(), os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = file.WriteString(strings.Replace(string(text), `"epoch":1`, `"epoch":2`, 1))
	require.NoError(t, err)
	require.NoError(t, file.Close())
	require.NoError(t, os.Chtimes(f.Path(), info.ModTime(), info.ModTime()))
	w.Until(2)
}

// A file that went back to an older map, or to none, is reported and not followed.
func TestFileWatchNeverGoesBack(t *testing.T) {
	t.Parallel()
	f := openFile(t, filepath.Join(t.TempDir(), "shards.json"))
	require.NoError(t, f.Publish(t.Context(), topotest.NewMap(t, 1, 2, "db")))
	backup, err := os.ReadFile(f.Path())
	require.NoError(t, err)
	require.NoError(t, f.Publish(t.Context(), topotest.NewMap(t, 2, 2, "db")))
	w := topotest.Watch(t, f)
	w.Until(2)
	require.NoError(t, os.WriteFile(f.Path(), backup, 0o600))
	require.ErrorContains(t, w.UntilError(shard.ErrStaleMap), f.Path())
	require.NoError(t, os.Remove(f.Path()))
	require.ErrorContains(t, w.UntilError(topo.ErrNoMap), f.Path())
	require.NoError(t, f.Publish(t.Context(), topotest.NewMap(t, 2, 4, "of another history")))
	require.ErrorContains(t, w.UntilError(shard.ErrSplitBrain), f.Path())
	require.NoError(t, f.Publish(t.Context(), topotest.NewMap(t, 3, 2, "db")))
	w.Until(3)
	require.Empty(t, w.Maps())
}

// Garbage is an error that says so, and whatever is read as a map is one that NewMap
// builds, and whose own document says the same.
func FuzzFile(f *testing.F) {
	for _, n := range []int{1, 2, 7} {
		text, err := topotest.NewMap(f, uint64(n), n, "db").MarshalJSON()
		require.NoError(f, err)
		f.Add(text)
		f.Add(text[:len(text)/2])
	}
	f.Add([]byte(`{"version":1,"epoch":3,"shards":[{"range":"-80","node":"a"},{"name":"x","range":"80-"}]}`))
	file := openFile(f, filepath.Join(f.TempDir(), "shards.json"))
	f.Fuzz(func(t *testing.T, text []byte) {
		require.NoError(t, os.WriteFile(file.Path(), text, 0o600))
		m, err := file.Load(t.Context())
		if err != nil {
			require.ErrorIs(t, err, shard.ErrBadMap)
			require.ErrorContains(t, err, file.Path())
			return
		}
		var shards []shard.Shard
		for s := range m.All() {
			shards = append(shards, *s)
		}
		built, err := shard.NewMap(m.Epoch(), shards...)
		require.NoError(t, err)
		require.Equal(t, m.Digest(), built.Digest())
		require.NoError(t, file.Publish(t.Context(), built), "it is there already")
	})
}

// Every map whose texts are UTF-8 comes back as it was published, and others are refused.
func TestFileRoundTrip(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		file, err := topo.NewFile(filepath.Join(folder, "shards.json"), topo.FileOptions{})
		require.NoError(t, err)
		require.NoError(t, os.RemoveAll(file.Path()))
		cuts := rapid.SliceOfNDistinct(rapid.Uint64Range(1, math.MaxUint64), 0, 5, rapid.ID[uint64]).Draw(t, "cuts")
		slices.Sort(cuts)
		node := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
		var shards []shard.Shard
		valid, start := true, uint64(0)
		for _, end := range append(cuts, 0) {
			s := shard.Shard{Range: shard.Range{Start: shard.ID(start), End: shard.ID(end)}, Node: node.Draw(t, "node")}
			valid = valid && utf8.ValidString(s.Node)
			shards, start = append(shards, s), end
		}
		m, err := shard.NewMap(rapid.Uint64().Draw(t, "epoch"), shards...)
		require.NoError(t, err)
		err = file.Publish(context.Background(), m)
		if !valid {
			require.ErrorIs(t, err, shard.ErrBadMap)
			return
		}
		require.NoError(t, err)
		got, err := file.Load(context.Background())
		require.NoError(t, err)
		require.Equal(t, m.Epoch(), got.Epoch())
		require.Equal(t, m.Digest(), got.Digest())
	})
}
