package topo_test

import (
	"context"
	"iter"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/topo"
	"github.com/evenkeel-go/evenkeel/shard/topo/topotest"
)

// A file that is ahead of its source is ahead also when somebody holds its lock.
func TestCachedLoadIsNotBehindAFileThatIsLocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := fileWith(t, 7)
		defer topo.LockFile(t, file.Path()+".lock")()
		m, err := cached(t, script{{m: topotest.NewMap(t, 5, 2, "source")}}, file).Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, uint64(7), m.Epoch())
	})
}

// And where the folder is read-only, so that the lock cannot be opened.
func TestCachedLoadIsNotBehindAFileThatIsReadOnly(t *testing.T) {
	file := fileWith(t, 7)
	require.NoError(t, os.Remove(file.Path()+".lock"))
	require.NoError(t, os.Mkdir(file.Path()+".lock", 0o700)) // root may write everywhere: a folder stands for EACCES
	m, err := cached(t, script{{m: topotest.NewMap(t, 5, 2, "source")}}, file).Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(7), m.Epoch())
}

type endsAtOnce struct{ script }

func (endsAtOnce) Watch(context.Context) iter.Seq2[*shard.Map, error] {
	return func(func(*shard.Map, error) bool) {}
}

// A source may end its watch without a word.
func TestCachedYieldsItsFileWhenTheSourceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, cached(t, endsAtOnce{}, fileWith(t, 5)), time.Minute)
		require.Equal(t, []uint64{5}, w.epochs)
	})
}

// deaf is a source that does not look at its context, and takes a while to end.
type deaf struct {
	release chan struct{}
	running atomic.Bool
}

func (d *deaf) Load(context.Context) (*shard.Map, error) { <-d.release; return nil, errDown }
func (d *deaf) Watch(ctx context.Context) iter.Seq2[*shard.Map, error] {
	return func(func(*shard.Map, error) bool) {
		d.running.Store(true)
		<-ctx.Done()
		time.Sleep(time.Second)
		d.running.Store(false)
	}
}

func TestCachedLoadOfADeafSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &deaf{release: make(chan struct{})}
		time.AfterFunc(time.Hour, func() { close(d.release) })
		start := time.Now()
		m, err := cached(t, d, fileWith(t, 5)).Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, uint64(5), m.Epoch())
		require.Equal(t, time.Second, time.Since(start))
		time.Sleep(2 * time.Hour)
	})
}

func TestCachedWatchLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(deaf)
		for range cached(t, d, fileWith(t, 5)).Watch(t.Context()) {
			require.True(t, d.running.Load())
			break
		}
		require.False(t, d.running.Load())
	})
}

// A file that is behind and cannot be written takes nothing from the source.
func TestCachedLoadAheadOfALockedFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := fileWith(t, 3)
		defer topo.LockFile(t, file.Path()+".lock")()
		m, err := cached(t, script{{m: topotest.NewMap(t, 5, 2, "source")}}, file).Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, uint64(5), m.Epoch())
	})
}
