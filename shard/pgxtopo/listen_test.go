package pgxtopo_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard/pgxtopo"
	"github.com/evenkeel-go/evenkeel/shard/topo"
)

// What needs a server is tested in internal/integration/topo.

func listenAt(t *testing.T, addr string) func(context.Context, string, func()) error {
	config, err := pgx.ParseConfig("postgres://nobody@" + addr + "/nothing?sslmode=disable")
	require.NoError(t, err)
	listen, err := pgxtopo.Listen(config)
	require.NoError(t, err)
	return topo.TableOptions{Listen: listen}.Listen // the types fit
}

func TestListenRefusesWhatItCannotConnectWith(t *testing.T) {
	t.Parallel()
	for _, config := range []*pgx.ConnConfig{nil, {}} {
		_, err := pgxtopo.Listen(config)
		require.ErrorContains(t, err, "config")
	}
}

func TestListenSaysWhyItCannotConnect(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close()) // nobody is there
	err = listenAt(t, l.Addr().String())(t.Context(), "shard_maps", func() { t.Error("changed") })
	require.ErrorContains(t, err, "pgxtopo: ")
}

// A server that accepts and is silent does not keep Listen beyond its context.
func TestListenEndsWithItsContext(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		c, err := l.Accept()
		if err == nil {
			defer func() { _ = c.Close() }()
			cancel()
			<-t.Context().Done()
		}
	}()
	ended := make(chan error, 1)
	go func() { ended <- listenAt(t, l.Addr().String())(ctx, "shard_maps", func() { t.Error("changed") }) }()
	select {
	case err := <-ended:
		require.ErrorIs(t, err, context.Canceled)
	case <-time.After(30 * time.Second):
		t.Fatal("Listen does not end")
	}
}
