package topo_test

import (
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard/topo"
	"github.com/evenkeel-go/evenkeel/shard/topo/topotest"
)

func storeInFile(args []string) (topo.Store, error) {
	return topo.NewFile(args[0], topo.FileOptions{Poll: poll})
}

func storeInTable(args []string) (topo.Store, error) {
	d := databases[args[0]]
	db, err := d.open(args[1])
	if err != nil {
		return nil, err
	}
	return topo.NewTable(db, d.dialect, topo.TableOptions{Name: args[2], Poll: poll})
}

// Publishers that are killed at random moments leave a whole map, never go back, and lose
// nothing that was acknowledged; the others go on.
func TestPublishersKilledAtRandom(t *testing.T) {
	t.Parallel()
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		killedAtRandom(t, storeInFile, "publish file", filepath.Join(t.TempDir(), "shards.json"))
	})
	t.Run("etcd", func(t *testing.T) {
		t.Parallel()
		killedAtRandom(t, storeInEtcd, "publish etcd", startEtcd(t).run(t).client, "shards")
	})
	for name, d := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := d.dsn(t)
			d.table(t, d.db(t, dsn), topo.TableOptions{Name: tableOf(t)})
			killedAtRandom(t, storeInTable, "publish table", name, dsn, tableOf(t))
		})
	}
}

func killedAtRandom(t *testing.T, open func([]string) (topo.Store, error), kind string, args ...string) {
	const kills = 6
	s, err := open(args)
	require.NoError(t, err)
	require.NoError(t, s.Publish(soon(t), topotest.NewMap(t, 1, 512, "db"))) // long enough to be torn
	w := topotest.Watch(t, s)                                                // which checks that epochs rise

	var mu sync.Mutex
	acknowledged := map[uint64]bool{}
	most := func() (epoch uint64) {
		mu.Lock()
		defer mu.Unlock()
		for e := range acknowledged {
			epoch = max(epoch, e)
		}
		return epoch
	}
	var readers sync.WaitGroup
	start := func() (*child, chan string) {
		c, lines := startChild(t, kind, args...), make(chan string, 100_000)
		readers.Go(func() {
			defer close(lines)
			for c.out.Scan() {
				epoch, err := strconv.ParseUint(c.out.Text(), 10, 64)
				if err != nil {
					t.Errorf("the child says %q", c.out.Text())
					return
				}
				mu.Lock()
				if acknowledged[epoch] {
					t.Errorf("two were told that they have published epoch %d", epoch)
				}
				acknowledged[epoch] = true
				mu.Unlock()
				lines <- c.out.Text()
			}
		})
		return c, lines
	}
	other, _ := start()
	for range kills {
		c, lines := start()
		for range 1 + rand.IntN(3) {
			select {
			case _, ok := <-lines:
				require.True(t, ok, "the publisher has ended")
			case <-time.After(patience):
				t.Fatal("the publisher gets nowhere")
			}
		}
		<-time.After(rand.N(5 * time.Millisecond)) // at any point of the next publication
		require.NoError(t, c.cmd.Process.Kill())
		for range lines { //nolint:revive // what it said before
		}
		c.kill()
		before := most()
		m, err := s.Load(soon(t))
		require.NoError(t, err)
		require.GreaterOrEqual(t, m.Epoch(), before)
		require.Equal(t, 512, m.Len())
	}
	require.NoError(t, other.cmd.Process.Kill())
	readers.Wait()
	last, err := s.Load(soon(t))
	require.NoError(t, err)
	require.GreaterOrEqual(t, last.Epoch(), most())
	require.Greater(t, most(), uint64(kills))
	w.Until(last.Epoch())
	next, err := last.Move(last.Lookup(0).Name, "after all")
	require.NoError(t, err)
	require.NoError(t, s.Publish(soon(t), next))
	w.Until(next.Epoch())
}
