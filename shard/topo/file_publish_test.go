//go:build unix

package topo_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/topo"
	"github.com/evenkeel-go/evenkeel/shard/topo/topotest"
)

// What Load would refuse for its length is not published.
func TestFilePublishesOnlyWhatItReads(t *testing.T) {
	f := emptyFile(t)
	f.SetMost(1000)
	published := 0
	for n := 880; n < 1000; n++ {
		m, err := shard.NewMap(uint64(n), shard.Shard{Node: strings.Repeat("x", n)})
		require.NoError(t, err)
		if err := f.Publish(t.Context(), m); err != nil {
			require.ErrorIs(t, err, shard.ErrBadMap)
			break
		}
		published++
		_, err = f.Load(t.Context())
		require.NoError(t, err, "Publish said that it is there")
	}
	require.Greater(t, published, 10)
	require.Less(t, published, 110)
}

// The umask takes nothing from a file that was there.
func TestFileKeepsPermissionsWhateverTheUmask(t *testing.T) {
	f := fileWith(t, 1)
	require.NoError(t, os.Chmod(f.Path(), 0o664)) // of a group that shares it; umask is 022
	require.NoError(t, f.Publish(t.Context(), topotest.NewMap(t, 2, 2, "db")))
	info, err := os.Stat(f.Path())
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o664), info.Mode())
}

// A link stays one, and both paths have one lock.
func TestFileIsOneThroughALink(t *testing.T) {
	target := fileWith(t, 5)
	link := filepath.Join(t.TempDir(), "shards.json")
	require.NoError(t, os.Symlink(target.Path(), link))
	f := openFile(t, link)
	require.NoError(t, f.Publish(t.Context(), topotest.NewMap(t, 6, 2, "db")))
	m, err := target.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(6), m.Epoch())
}

// A process of an older version undoes nothing of a newer one.
func TestFileOfANewerVersionIsNotOverwritten(t *testing.T) {
	f := emptyFile(t)
	require.NoError(t, os.WriteFile(f.Path(), []byte(`{"version":2,"epoch":50,"ranges":{}}`), 0o600))
	require.Error(t, f.Publish(t.Context(), topotest.NewMap(t, 3, 2, "db")))
}

// A lock file that root made once does not shut out the user of the service.
func TestFileLockOfAnotherUserIsShared(t *testing.T) {
	folder, err := os.MkdirTemp("", "topo") // that of the test is in one of root's
	require.NoError(t, err)
	defer func() { require.NoError(t, os.RemoveAll(folder)) }()
	require.NoError(t, os.Chmod(folder, 0o777))
	f := openFile(t, filepath.Join(folder, "shards.json"))
	require.NoError(t, f.Publish(t.Context(), topotest.NewMap(t, 1, 2, "db")))
	require.NoError(t, os.Chmod(f.Path()+".lock", 0o444)) // as others find it
	if os.Getuid() == 0 {                                 // who may write all the same
		require.NoError(t, syscall.Setreuid(-1, 65534))
		defer func() { require.NoError(t, syscall.Setreuid(-1, 0)) }()
	}
	require.NoError(t, f.Publish(t.Context(), topotest.NewMap(t, 2, 2, "db")))
}

// What is there already needs neither a lock nor a writable folder.
func TestFilePublishesTheSameMapWhileLocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fileWith(t, 7)
		defer topo.LockFile(t, f.Path()+".lock")()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, f.Publish(ctx, topotest.NewMap(t, 7, 2, "file")))
	})
}

func TestNewFileCanBeReadByAll(t *testing.T) {
	f := fileWith(t, 1)
	probe := f.Path() + ".probe" // says what the umask leaves
	require.NoError(t, os.WriteFile(probe, nil, 0o644))
	want, err := os.Stat(probe)
	require.NoError(t, err)
	got, err := os.Stat(f.Path())
	require.NoError(t, err)
	require.Equal(t, want.Mode(), got.Mode())
}

func TestFileTooLong(t *testing.T) {
	f := fileWith(t, 1)
	f.SetMost(10_000)
	text, err := os.ReadFile(f.Path())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(f.Path(), append(text, bytes.Repeat([]byte(" "), 10_000-len(text))...), 0o600))
	_, err = f.Load(t.Context())
	require.NoError(t, err, "as long as may be")
	require.NoError(t, os.WriteFile(f.Path(), append(text, bytes.Repeat([]byte(" "), 10_001-len(text))...), 0o600))
	_, err = f.Load(t.Context())
	require.ErrorIs(t, err, shard.ErrBadMap)
}

// A file that cannot be read is tried again soon, whatever the poll.
func TestFileWatchBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, err := topo.NewFile(t.TempDir(), topo.FileOptions{Poll: time.Hour})
		require.NoError(t, err)
		w := watch(t, f, time.Minute)
		require.InDelta(t, 15, len(w.errors), 5)
	})
}
