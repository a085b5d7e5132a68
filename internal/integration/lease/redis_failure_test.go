package lease_test

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/internal/testserver"
)

// A server that hangs tells nobody anything: the holder knows by its own clock.
func TestRedisGrantIsLostWhenTheServerHangs(t *testing.T) {
	t.Parallel()
	r := testserver.StartRedis(t)
	l := redisLease(t, redisClient(t, rueidis.ClientOption{InitAddress: []string{r.Addr()}}), ttl)
	g := acquire(t, l, "key")
	r.Pause()
	requireLost(t, g)
	r.Resume()
	require.ErrorIs(t, g.Release(soon(t)), coalesce.ErrFenced)
	require.NoError(t, succeed(t, l, "key").Release(soon(t)))
}

// A server without sharded Pub/Sub, or a user who may not use it: those that
// wait find out by looking.
func TestRedisWithoutSubscriptions(t *testing.T) {
	t.Parallel()
	r := testserver.StartRedis(t, "--rename-command", "SSUBSCRIBE", "", "--rename-command", "SPUBLISH", "")
	open := func() coalesce.Lease {
		return redisLease(t, redisClient(t, rueidis.ClientOption{InitAddress: []string{r.Addr()}}), time.Minute)
	}
	a, b := open(), open()
	g := acquire(t, a, "key")
	waited := make(chan error, 1)
	go func() { waited <- b.Wait(soon(t), "key") }()
	<-time.After(100 * time.Millisecond)
	require.NoError(t, g.Release(soon(t)))
	require.NoError(t, <-waited)
}

// A process that has waited for a million keys is not subscribed to a million
// channels.
func TestRedisSubscriptionsAreGivenUp(t *testing.T) {
	t.Parallel()
	r := testserver.StartRedis(t)
	l := redisLease(t, redisClient(t, rueidis.ClientOption{InitAddress: []string{r.Addr()}}), time.Minute)
	const keys = 50
	waited := make(chan error, 2*keys)
	var grants []coalesce.Grant
	for i := range keys {
		key := fmt.Sprint(i)
		grants = append(grants, acquire(t, l, key))
		for range 2 {
			go func() { waited <- l.Wait(soon(t), key) }()
		}
	}
	channels := func(n int) {
		require.Eventually(t, func() bool {
			return strings.Contains(r.Do(t, "INFO", "stats"), fmt.Sprintf("pubsubshard_channels:%d\r\n", n))
		}, patience, 10*time.Millisecond, "%d channels", n)
	}
	channels(keys)
	for _, g := range grants {
		require.NoError(t, g.Release(soon(t)))
	}
	for range cap(waited) {
		require.NoError(t, <-waited)
	}
	channels(0)
}

// A replica takes over from its master and does not know the newest lease, which
// is granted twice. Tokens grow nevertheless, the first holder is told, and of
// the two only the second can store.
//
// It does not run in parallel, as no test does that kills nodes of a cluster: the
// others look for the dead one, and would take in a node of another cluster that
// is given its port.
func TestRedisClusterFailover(t *testing.T) {
	cluster := testserver.StartRedisCluster(t)
	l := redisLease(t, redisClient(t, rueidis.ClientOption{InitAddress: cluster.Addrs()}), ttl)
	other := redisLease(t, redisClient(t, rueidis.ClientOption{InitAddress: cluster.Addrs()}), ttl)
	require.NoError(t, acquire(t, l, "key").Release(soon(t)))
	var master *testserver.Redis // of the key: the one that remembers a token
	for _, n := range cluster.Nodes {
		if n.Do(t, "DBSIZE") != "0" {
			require.Nil(t, master, "all of a key is in one slot")
			master = n
		}
	}
	require.NotNil(t, master)
	replica := replicaOf(t, cluster, master)

	replica.Pause()
	master.Do(t, "CLIENT", "KILL", "TYPE", "replica") // what it is sent would wait in its socket
	g := acquire(t, l, "key")
	require.NoError(t, l.Put(soon(t), "key", g.Token(), []byte("first"), resultTTL))
	master.Kill()
	replica.Resume()

	var next coalesce.Grant
	require.Eventually(t, func() bool {
		var err error
		next, err = other.Acquire(soon(t), "key")
		return err == nil
	}, patience, 50*time.Millisecond)
	require.Equal(t, "master", role(t, replica))
	require.Greater(t, next.Token(), g.Token())
	requireLost(t, g)
	require.Eventually(t, func() bool { // when its client has learned of the new master
		err := l.Put(soon(t), "key", g.Token(), []byte("late"), resultTTL)
		require.Error(t, err)
		return errors.Is(err, coalesce.ErrFenced)
	}, patience, 50*time.Millisecond)
	require.ErrorIs(t, g.Release(soon(t)), coalesce.ErrFenced)
	require.NoError(t, other.Put(soon(t), "key", next.Token(), []byte("second"), resultTTL))
	require.NoError(t, next.Release(soon(t)))
}

func role(t *testing.T, r *testserver.Redis) string {
	_, rest, _ := strings.Cut(r.Do(t, "INFO", "replication"), "role:")
	role, _, _ := strings.Cut(rest, "\r\n")
	return role
}

// replicaOf adds a node to the cluster, and returns when it has the data of its
// master and every master knows it, so that they elect it.
func replicaOf(t *testing.T, cluster *testserver.RedisCluster, master *testserver.Redis) *testserver.Redis {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	bus := free.Addr().(*net.TCPAddr).Port
	require.NoError(t, free.Close())
	r := testserver.StartRedis(t, "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf",
		"--cluster-node-timeout", "1000", "--cluster-port", strconv.Itoa(bus))
	_, rest, _ := strings.Cut(myself(t, master), "@")
	masterBus, _, _ := strings.Cut(strings.Fields(rest)[0], ",")
	require.Equal(t, "OK", master.Do(t, "CONFIG", "SET", "repl-diskless-sync-delay", "0"))
	require.Equal(t, "OK", r.Do(t, "CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(master.Port), masterBus))
	id := master.Do(t, "CLUSTER", "MYID")
	require.Eventually(t, func() bool { return strings.Contains(r.Do(t, "CLUSTER", "NODES"), id) }, patience, 20*time.Millisecond)
	require.Equal(t, "OK", r.Do(t, "CLUSTER", "REPLICATE", id))
	replica := r.Do(t, "CLUSTER", "MYID")
	known := func(n *testserver.Redis) bool {
		for line := range strings.Lines(n.Do(t, "CLUSTER", "NODES")) {
			if strings.HasPrefix(line, replica) {
				return strings.Contains(line, "slave "+id)
			}
		}
		return false
	}
	require.Eventually(t, func() bool {
		return strings.Contains(r.Do(t, "INFO", "replication"), "master_link_status:up") &&
			known(cluster.Nodes[0]) && known(cluster.Nodes[1]) && known(cluster.Nodes[2])
	}, patience, 20*time.Millisecond)
	return r
}

// myself is the line of a node in its own list.
func myself(t *testing.T, r *testserver.Redis) string {
	for line := range strings.Lines(r.Do(t, "CLUSTER", "NODES")) {
		if strings.Contains(line, "myself") {
			return line
		}
	}
	t.Fatal("a node that does not know itself")
	return ""
}
