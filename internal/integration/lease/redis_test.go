package lease_test

import (
	"context"
	"crypto/tls"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/coalescetest"
	"github.com/evenkeel-go/evenkeel/coalesce/redislease"
	"github.com/evenkeel-go/evenkeel/internal/testserver"
)

// ttl is long enough for a loaded machine not to lose what it renews: with 2 s
// and ten processes for each core, it did.
const ttl = 4 * time.Second

// resultTTL is longer than any test.
const resultTTL = time.Hour

func redisClient(t testing.TB, o rueidis.ClientOption) rueidis.Client {
	t.Helper()
	c, err := rueidis.NewClient(o)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func redisLease(t testing.TB, c rueidis.Client, ttl time.Duration) *redislease.Lease {
	t.Helper()
	l, err := redislease.New(c, redislease.Options{TTL: ttl, Prefix: t.Name() + ":"})
	require.NoError(t, err)
	return l
}

// redisParticipant is a process with a client of its own.
func redisParticipant(l *redislease.Lease) coalescetest.Participant {
	return coalescetest.Participant{
		Lease: l,
		Put: func(ctx context.Context, key string, token coalesce.Token, value []byte) error {
			return l.Put(ctx, key, token, value, resultTTL)
		},
		Get: l.Get,
	}
}

// redisChild opens a participant in another process. The arguments are the
// database, the prefix and the addresses.
func redisChild(args []string) (coalescetest.Participant, error) {
	db, err := strconv.Atoi(args[0])
	if err != nil {
		return coalescetest.Participant{}, err
	}
	c, err := rueidis.NewClient(rueidis.ClientOption{SelectDB: db, InitAddress: args[2:]})
	if err != nil {
		return coalescetest.Participant{}, err
	}
	l, err := redislease.New(c, redislease.Options{TTL: ttl, Prefix: args[1]})
	return redisParticipant(l), err
}

// redisProcesses are the tests that take other processes.
func redisProcesses(t *testing.T, kind string, db int, addrs ...string) {
	with := func(t *testing.T) (p []coalescetest.Participant, c *child, key string) {
		for range 3 {
			p = append(p, redisParticipant(redisLease(t, redisClient(t, rueidis.ClientOption{SelectDB: db, InitAddress: addrs}), ttl)))
		}
		args := append([]string{strconv.Itoa(db), t.Name() + ":"}, addrs...)
		return p, holder(t, kind, append(args, "key")...), "key"
	}
	t.Run("killed holder is succeeded", func(t *testing.T) {
		t.Parallel()
		p, c, key := with(t)
		killedHolderIsSucceeded(t, c, key, p...)
	})
	t.Run("stopped holder is fenced", func(t *testing.T) {
		t.Parallel()
		p, c, key := with(t)
		stoppedHolderIsFenced(t, c, key, p[0])
	})
	t.Run("killed at random", func(t *testing.T) {
		t.Parallel()
		l := redisLease(t, redisClient(t, rueidis.ClientOption{SelectDB: db, InitAddress: addrs}), ttl)
		killedAtRandom(t, redisParticipant(l), kind, append([]string{strconv.Itoa(db), t.Name() + ":"}, addrs...)...)
	})
}

func TestRedis(t *testing.T) {
	t.Parallel()
	addr, db := testserver.RedisAddr(t)
	t.Run("suite", func(t *testing.T) {
		open := func(t testing.TB) coalescetest.Participant {
			proxy := testserver.StartProxy(t, addr)
			p := redisParticipant(redisLease(t, redisClient(t, rueidis.ClientOption{InitAddress: []string{proxy.Addr()}, SelectDB: db}), ttl))
			p.Cut, p.Heal = proxy.BlackHole, proxy.Heal
			return p
		}
		coalescetest.TestLease(t, coalescetest.Subject{
			Open: func(t testing.TB) (a, b coalescetest.Participant) { return open(t), open(t) },
			TTL:  ttl,
		})
	})
	redisProcesses(t, "redis", db, addr)
}

// A server that has lost its data has forgotten who holds what: the holder finds
// out, and the token of the next is nevertheless greater.
func TestRedisThatLosesItsData(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*testing.T, *testserver.Redis){
		"FLUSHALL":         func(t *testing.T, r *testserver.Redis) { r.Do(t, "FLUSHALL") },
		"kill and restart": func(t *testing.T, r *testserver.Redis) { r.Kill(); r.Restart(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := testserver.StartRedis(t)
			p := redisParticipant(redisLease(t, redisClient(t, rueidis.ClientOption{InitAddress: []string{r.Addr()}}), ttl))
			g, err := p.Acquire(t.Context(), "k")
			require.NoError(t, err)
			require.NoError(t, p.Put(t.Context(), "k", g.Token(), []byte("old")))
			lose(t, r)
			var next coalesce.Grant
			require.Eventually(t, func() bool { // before the first has noticed
				next, err = p.Acquire(soon(t), "k")
				return err == nil
			}, patience, time.Millisecond)
			require.Greater(t, next.Token(), g.Token())
			requireLost(t, g)
			require.ErrorIs(t, p.Put(t.Context(), "k", g.Token(), []byte("late")), coalesce.ErrFenced)
			require.ErrorIs(t, g.Release(t.Context()), coalesce.ErrFenced)
			require.NoError(t, p.Put(t.Context(), "k", next.Token(), []byte("new")))
			require.NoError(t, next.Release(t.Context()))
		})
	}
}

// The message of a release is lost when the subscription is cut off at that
// moment; those that wait find out by themselves.
func TestRedisWaitSurvivesTheLossOfItsSubscription(t *testing.T) {
	t.Parallel()
	r := testserver.StartRedis(t)
	open := func() *redislease.Lease {
		return redisLease(t, redisClient(t, rueidis.ClientOption{InitAddress: []string{r.Addr()}}), 5*time.Minute)
	}
	g, err := open().Acquire(t.Context(), "k")
	require.NoError(t, err)
	waited := make(chan error, 1)
	l := open()
	go func() { waited <- l.Wait(t.Context(), "k") }()
	for r.Do(t, "CLIENT", "KILL", "TYPE", "pubsub") == "0" { // until it has subscribed
		<-time.After(time.Millisecond)
	}
	require.NoError(t, g.Release(t.Context()))
	require.NoError(t, <-waited)
}

func TestRedisCluster(t *testing.T) {
	t.Parallel()
	cluster := testserver.StartRedisCluster(t)
	t.Run("suite", func(t *testing.T) {
		coalescetest.TestLease(t, coalescetest.Subject{
			Open: func(t testing.TB) (a, b coalescetest.Participant) {
				return clusterParticipant(t, cluster), clusterParticipant(t, cluster)
			},
			TTL: ttl,
		})
	})
	redisProcesses(t, "redis cluster", 0, cluster.Addrs()...)
}

// clusterParticipant reaches each node through a proxy of its own.
func clusterParticipant(t testing.TB, cluster *testserver.RedisCluster) coalescetest.Participant {
	proxies := map[string]*testserver.Proxy{}
	for _, addr := range cluster.Addrs() {
		proxies[addr] = testserver.StartProxy(t, addr)
	}
	c := redisClient(t, rueidis.ClientOption{
		InitAddress: cluster.Addrs(),
		DialCtxFn: func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", proxies[addr].Addr())
		},
	})
	p := redisParticipant(redisLease(t, c, ttl))
	each := func(f func(*testserver.Proxy)) func() {
		return func() {
			for _, proxy := range proxies {
				f(proxy)
			}
		}
	}
	p.Cut, p.Heal = each((*testserver.Proxy).BlackHole), each((*testserver.Proxy).Heal)
	return p
}

// When the masters are killed, nobody becomes a holder by that: to acquire fails
// while they are down, the holder loses what it has, and when they are back, with
// no data, the next token is greater.
func TestRedisClusterWhoseMastersAreKilled(t *testing.T) {
	cluster := testserver.StartRedisCluster(t)
	open := func() coalescetest.Participant {
		return redisParticipant(redisLease(t, redisClient(t, rueidis.ClientOption{InitAddress: cluster.Addrs()}), ttl))
	}
	p, other := open(), open()
	g, err := p.Acquire(t.Context(), "k")
	require.NoError(t, err)
	for _, n := range cluster.Nodes {
		n.Kill()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = other.Acquire(ctx, "k")
	require.Error(t, err)
	<-g.Lost()
	for _, n := range cluster.Nodes {
		n.Restart(t)
	}
	var next coalesce.Grant
	for next == nil { // until the cluster has found together
		ctx, cancel := context.WithTimeout(t.Context(), ttl)
		next, err = other.Acquire(ctx, "k")
		if err != nil {
			next = nil
			<-time.After(50 * time.Millisecond)
		}
		cancel()
	}
	require.Greater(t, next.Token(), g.Token())
	require.ErrorIs(t, p.Put(t.Context(), "k", g.Token(), []byte("late")), coalesce.ErrFenced)
	require.NoError(t, other.Put(t.Context(), "k", next.Token(), []byte("new")))
	require.NoError(t, next.Release(t.Context()))
}
