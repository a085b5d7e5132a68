package lease_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/coalescetest"
	"github.com/evenkeel-go/evenkeel/coalesce/redislease"
	"github.com/evenkeel-go/evenkeel/internal/testserver"
)

// ttl is long enough for a loaded machine not to lose what it renews.
const ttl = 2 * time.Second

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

func TestRedis(t *testing.T) {
	addr, db := testserver.RedisAddr(t)
	open := func(t testing.TB) coalescetest.Participant {
		proxy := testserver.StartProxy(t, addr)
		p := redisParticipant(redisLease(t, redisClient(t, rueidis.ClientOption{InitAddress: []string{proxy.Addr()}, SelectDB: db}), ttl))
		p.Cut, p.Heal = proxy.BlackHole, proxy.Heal
		return p
	}
	t.Run("suite", func(t *testing.T) {
		coalescetest.TestLease(t, coalescetest.Subject{
			Open: func(t testing.TB) (a, b coalescetest.Participant) { return open(t), open(t) },
			TTL:  ttl,
		})
	})
}
