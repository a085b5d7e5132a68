package topo_test

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/evenkeel-go/evenkeel/internal/testserver"
	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/etcdtopo"
	"github.com/evenkeel-go/evenkeel/shard/topo"
	"github.com/evenkeel-go/evenkeel/shard/topo/topotest"
)

// etcdServer is a member of its own cluster, in a process of its own so that it can be
// killed.
func etcdServer(args []string) error {
	c := embed.NewConfig()
	c.Dir = args[0]
	client, peer := url.URL{Scheme: "http", Host: args[1]}, url.URL{Scheme: "http", Host: args[2]}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.UnsafeNoFsync = true // a kill loses nothing that the system has
	c.LogLevel = "error"
	c.LogOutputs = []string{filepath.Join(filepath.Dir(args[0]), "log")}
	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	<-e.Server.ReadyNotify()
	fmt.Println("ready")
	return <-e.Err()
}

// etcd is a running server.
type etcd struct {
	*child
	dir, client, peer string
}

func startEtcd(t testing.TB) *etcd {
	t.Helper()
	var addrs [2]string
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		addrs[i] = l.Addr().String()
		defer func() { require.NoError(t, l.Close()) }()
	}
	dir, err := os.MkdirTemp(t.TempDir(), "etcd") // removed after the server was killed
	require.NoError(t, err)
	return &etcd{dir: filepath.Join(dir, "data"), client: addrs[0], peer: addrs[1]}
}

// run starts the server, also again after a kill.
func (e *etcd) run(t testing.TB) *etcd {
	t.Helper()
	e.child = startChild(t, "etcd", e.dir, e.client, e.peer)
	require.Equal(t, "ready", e.line(t))
	return e
}

func openEtcd(addr string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{addr}, DialTimeout: patience, Logger: zap.NewNop()})
}

func (e *etcd) open(t testing.TB) *clientv3.Client {
	t.Helper()
	c, err := openEtcd(e.client)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (e *etcd) store(t testing.TB, key string) *etcdtopo.Store {
	t.Helper()
	s, err := etcdtopo.New(e.open(t), key)
	require.NoError(t, err)
	return s
}

func storeInEtcd(args []string) (topo.Store, error) {
	c, err := openEtcd(args[0])
	if err != nil {
		return nil, err
	}
	return etcdtopo.New(c, args[1])
}

func TestEtcd(t *testing.T) {
	t.Parallel()
	e := startEtcd(t).run(t)
	topotest.Run(t, func(t testing.TB) topotest.Place {
		client := e.open(t)
		key := t.Name() + "/shards"
		put := func(t testing.TB, text string) {
			_, err := client.Put(soon(t), key, text)
			require.NoError(t, err)
		}
		return topotest.Place{
			Open: func(t testing.TB) topo.Store {
				s, err := etcdtopo.New(client, key)
				require.NoError(t, err)
				return s
			},
			Neighbor: func(t testing.TB) topo.Store { return e.store(t, key+"2") },
			Corrupt:  put,
			Restore:  put,
			Delete: func(t testing.TB) {
				_, err := client.Delete(soon(t), key)
				require.NoError(t, err)
			},
			Where: "key " + key,
		}
	})
}

func TestEtcdRefusesOptions(t *testing.T) {
	t.Parallel()
	_, err := etcdtopo.New(nil, "key")
	require.ErrorContains(t, err, "client")
	_, err = etcdtopo.New(new(clientv3.Client), "")
	require.ErrorContains(t, err, "key")
}

// Compactions, also of what a watch has not read, a deleted key and a value that goes
// back do not end a watch.
func TestEtcdWatchGoesOn(t *testing.T) {
	t.Parallel()
	e := startEtcd(t).run(t)
	client := e.open(t)
	s := e.store(t, "shards")
	w := topotest.Watch(t, s)
	w.UntilError(topo.ErrNoMap)
	for epoch := uint64(1); epoch <= 5; epoch++ {
		require.NoError(t, s.Publish(soon(t), topotest.NewMap(t, epoch, 2, "db")))
		r, err := client.Get(soon(t), "shards")
		require.NoError(t, err)
		_, err = client.Compact(soon(t), r.Header.Revision)
		require.NoError(t, err)
	}
	w.Until(5)
	require.NoError(t, s.Publish(soon(t), topotest.NewMap(t, 6, 2, "db")))
	w.Until(6)

	_, err := client.Delete(soon(t), "shards")
	require.NoError(t, err)
	w.UntilError(topo.ErrNoMap)
	require.NoError(t, s.Publish(soon(t), topotest.NewMap(t, 2, 2, "db")), "there is none")
	require.ErrorContains(t, w.UntilError(shard.ErrStaleMap), "key shards")
	require.NoError(t, s.Publish(soon(t), topotest.NewMap(t, 6, 2, "other")))
	w.UntilError(shard.ErrSplitBrain)
	require.NoError(t, s.Publish(soon(t), topotest.NewMap(t, 7, 2, "db")))
	w.Until(7)
	require.Empty(t, w.Maps())
}

// A client that was closed is an error and no busy loop.
func TestEtcdClosedClient(t *testing.T) {
	t.Parallel()
	e := startEtcd(t).run(t)
	client := e.open(t)
	s, err := etcdtopo.New(client, "shards")
	require.NoError(t, err)
	require.NoError(t, s.Publish(soon(t), topotest.NewMap(t, 1, 2, "db")))
	w := topotest.Watch(t, s)
	w.Until(1)
	require.NoError(t, client.Close())
	for range 3 {
		require.Error(t, w.AnyError())
	}
	_, err = s.Load(soon(t))
	require.Error(t, err)
	require.NotErrorIs(t, err, topo.ErrNoMap)
	require.Error(t, s.Publish(soon(t), topotest.NewMap(t, 2, 2, "db")))
}

// A watch survives a kill of the server, and finds what was published meanwhile, with and
// without a compaction of it.
func TestEtcdKilled(t *testing.T) {
	t.Parallel()
	for _, compact := range []bool{false, true} {
		t.Run(fmt.Sprint("compact=", compact), func(t *testing.T) {
			t.Parallel()
			e := startEtcd(t).run(t)
			s := e.store(t, "shards")
			require.NoError(t, s.Publish(soon(t), topotest.NewMap(t, 1, 2, "db")))
			w := topotest.Watch(t, s)
			w.Until(1)
			for round := uint64(1); round <= 3; round++ {
				e.kill()
				ctx, cancel := contextWithin(t, 100*time.Millisecond)
				_, err := s.Load(ctx)
				cancel()
				require.Error(t, err)
				// Another client is first after the restart, as it may be.
				e.run(t)
				for epoch := 10 * round; epoch < 10*round+3; epoch++ {
					require.NoError(t, e.store(t, "shards").Publish(soon(t), topotest.NewMap(t, epoch, 2, "db")))
				}
				if compact {
					client := e.open(t)
					r, err := client.Get(soon(t), "shards")
					require.NoError(t, err)
					_, err = client.Compact(soon(t), r.Header.Revision)
					require.NoError(t, err)
				}
				w.Until(10*round + 2)
			}
			w.Stop()
		})
	}
}

// A watch whose network is silent, and then cut, finds what was published meanwhile.
func TestEtcdNetworkFails(t *testing.T) {
	t.Parallel()
	e := startEtcd(t).run(t)
	proxy := testserver.StartProxy(t, e.client)
	far, err := clientv3.New(clientv3.Config{
		Endpoints: []string{proxy.Addr()}, DialTimeout: patience, Logger: zap.NewNop(),
		DialKeepAliveTime: time.Second, DialKeepAliveTimeout: time.Second,
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = far.Close() })
	watched, err := etcdtopo.New(far, "shards")
	require.NoError(t, err)
	near := e.store(t, "shards")
	require.NoError(t, near.Publish(soon(t), topotest.NewMap(t, 1, 2, "db")))
	w := topotest.Watch(t, watched)
	w.Until(1)
	proxy.BlackHole()
	requireBlockedCallsEnd(t, watched)
	require.NoError(t, near.Publish(soon(t), topotest.NewMap(t, 2, 2, "db")))
	proxy.Heal()
	w.Until(2)
	proxy.Cut()
	require.NoError(t, near.Publish(soon(t), topotest.NewMap(t, 3, 2, "db")))
	w.Until(3)
	w.Stop()
}

// A process that starts while etcd is down runs from the file, and goes on from etcd.
func TestEtcdStartWithout(t *testing.T) {
	t.Parallel()
	e := startEtcd(t).run(t)
	path := filepath.Join(t.TempDir(), "shards.json")
	cached := func() *topo.Cached {
		file, err := topo.NewFile(path, topo.FileOptions{})
		require.NoError(t, err)
		c, err := topo.NewCached(e.store(t, "shards"), file, topo.CachedOptions{})
		require.NoError(t, err)
		return c
	}
	require.NoError(t, e.store(t, "shards").Publish(soon(t), topotest.NewMap(t, 1, 2, "db")))
	_, err := cached().Load(soon(t)) // which has written the file
	require.NoError(t, err)
	e.kill()
	m, err := cached().Load(soon(t))
	require.NoError(t, err)
	require.Equal(t, uint64(1), m.Epoch())
	w := topotest.Watch(t, cached())
	w.Until(1)
	e.run(t)
	require.NoError(t, e.store(t, "shards").Publish(soon(t), topotest.NewMap(t, 2, 2, "db")))
	w.Until(2)
}
