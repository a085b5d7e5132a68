//go:build unix

package testserver_test

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/testserver"
)

// echo is a server that sends back what it gets, and counts it.
func echo(t *testing.T) (address string, received *atomic.Int64) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	received = &atomic.Int64{}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				buf := make([]byte, 1024)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					received.Add(int64(n))
					if _, err := c.Write(buf[:n]); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	return l.Addr().String(), received
}

func connect(t *testing.T, p *testserver.Proxy) net.Conn {
	c, err := net.Dial("tcp", p.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ping sends a word and reads it back.
func ping(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := c.Write([]byte("hello"))
	require.NoError(t, err)
	buf := make([]byte, 5)
	_, err = io.ReadFull(c, buf)
	require.NoError(t, err)
	require.Equal(t, "hello", string(buf))
}

// silent checks that nothing can be read for a moment.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(30*time.Millisecond)))
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, c.SetReadDeadline(time.Time{}))
}

func TestProxyPassesData(t *testing.T) {
	t.Parallel()
	target, _ := echo(t)
	p := testserver.StartProxy(t, target)
	c := connect(t, p)
	for range 100 {
		ping(t, c)
	}
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "the end is passed on, both ways")
}

func TestProxyLatencyHoldsEachWay(t *testing.T) {
	t.Parallel()
	target, _ := echo(t)
	p := testserver.StartProxy(t, target)
	c := connect(t, p)
	ping(t, c)
	p.SetLatency(40 * time.Millisecond)
	started := time.Now()
	ping(t, c)
	require.GreaterOrEqual(t, time.Since(started), 80*time.Millisecond) // no upper bound: the machine may be busy
	p.SetLatency(0)
	ping(t, c)
}

func TestProxyBlackHoleSwallowsAndHealGivesBack(t *testing.T) {
	t.Parallel()
	target, received := echo(t)
	p := testserver.StartProxy(t, target)
	old := connect(t, p)
	ping(t, old)
	before := received.Load()
	p.BlackHole()
	fresh := connect(t, p)
	for _, c := range []net.Conn{old, fresh} {
		_, err := c.Write([]byte("hello"))
		require.NoError(t, err)
		silent(t, c)
	}
	require.Equal(t, before, received.Load(), "nothing arrived")
	p.Heal()
	for _, c := range []net.Conn{old, fresh} {
		_, err := io.ReadFull(c, make([]byte, 5))
		require.NoError(t, err)
	}
}

func TestProxyHalfOpenLosesTheAnswersOnly(t *testing.T) {
	t.Parallel()
	target, received := echo(t)
	p := testserver.StartProxy(t, target)
	c := connect(t, p)
	p.HalfOpen()
	_, err := c.Write([]byte("hello"))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return received.Load() == 5 }, 10*time.Second, time.Millisecond, "the server did the work")
	silent(t, c)
}

func TestProxyCutResetsAndNewConnectionsWork(t *testing.T) {
	t.Parallel()
	target, _ := echo(t)
	p := testserver.StartProxy(t, target)
	c := connect(t, p)
	ping(t, c)
	p.Cut()
	_, err := c.Read(make([]byte, 1))
	require.True(t, errors.Is(err, syscall.ECONNRESET), "%v", err)
	ping(t, connect(t, p))
}

func TestProxyResetsWhereThereIsNoServer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	c, err := net.Dial("tcp", testserver.StartProxy(t, l.Addr().String()).Addr())
	if err == nil { // the reset may come that early
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	require.Error(t, err)
	require.NotErrorIs(t, err, io.EOF)
}
