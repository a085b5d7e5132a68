package topo_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
		Where:    path,
		Block:    func(t testing.TB) func() { return topo.LockFile(t, path+".lock") },
	}
}

func TestFileIsAStore(t *testing.T) {
	t.Parallel()
	topotest.Run(t, filePlace)
}
