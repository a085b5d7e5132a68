//go:build unix

package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/internal/testserver"
	"github.com/evenkeel-go/evenkeel/outbox"
)

// A load adds and drains in this process until it is ended.
type load struct {
	s         *site
	stop      func()
	running   sync.WaitGroup
	delivered atomic.Int64
	endAdding func()
	adding    sync.WaitGroup
}

// startLoad has two writers on db, and two drainers on a pool of their own.
func startLoad(t *testing.T, s *site, drains *sql.DB) *load {
	l := &load{s: s}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	l.stop = stop
	t.Cleanup(l.end)
	file, err := s.file()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, file.Close()) })
	deliver := deliverTo(file, 20)
	for range 2 {
		box := s.box(t, matrixOptions.options())
		l.running.Go(func() {
			for ctx.Err() == nil { // Run needs the database when it begins
				_ = box.Run(ctx, drains, outbox.PublisherFunc(func(ctx context.Context, m outbox.Message) error {
					err := deliver(ctx, m)
					if err == nil {
						l.delivered.Add(1)
					}
					return err
				}))
				elapse(time.Millisecond)
			}
		})
	}
	adding, endAdding := context.WithCancel(ctx)
	l.endAdding = endAdding
	for range 2 {
		box := s.box(t, matrixOptions.options())
		l.adding.Go(func() {
			for adding.Err() == nil {
				bounded, cancel := context.WithTimeout(adding, 2*time.Second)
				_ = s.add(bounded, s.db, box, rand.IntN(4) > 0, 1+rand.IntN(3), rand.IntN(siteKeys), -1) // what counts is what is committed
				cancel()
				elapse(2 * time.Millisecond)
			}
		})
	}
	return l
}

// goesOn waits for n more deliveries.
func (l *load) goesOn(t *testing.T, n int64) {
	t.Helper()
	from := l.delivered.Load()
	until(t, "deliveries go on", func() bool { return l.delivered.Load() >= from+n })
}

// end stops all of it.
func (l *load) end() {
	l.endAdding()
	l.adding.Wait()
	l.stop()
	l.running.Wait()
}

// finish ends the load when all is delivered, and checks it.
func (l *load) finish(t *testing.T) {
	l.endAdding()
	l.adding.Wait()
	l.s.settled(t)
	l.end()
	sum := l.s.check(t)
	t.Logf("%d messages, %d deliveries repeated", sum.committed, sum.repeated)
}

// A server can be killed and started again.
type server interface {
	Kill()
	Restart(t testing.TB)
	Addr() string
	DSN() string
}

func servers(t *testing.T, f func(*testing.T, server, *site)) {
	starts := map[string]func(*testing.T) server{
		"postgres": func(t *testing.T) server { return testserver.StartPostgres(t, testserver.PostgresOptions{}) },
		"mysql":    func(t *testing.T) server { return testserver.StartMariaDB(t, testserver.MariaDBOptions{}) },
	}
	for _, kind := range some(1, "postgres", "mysql") {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			srv := starts[kind](t)
			s := &site{Kind: kind, DSN: srv.DSN(), Folder: t.TempDir()}
			s.setUp(t)
			f(t, srv, s)
		})
	}
}

// TestServerCrashesUnderLoad kills the server in the middle of it all, and starts
// it again: drainers come back by themselves.
func TestServerCrashesUnderLoad(t *testing.T) {
	t.Parallel()
	underRace(t)
	servers(t, func(t *testing.T, srv server, s *site) {
		l := startLoad(t, s, s.db)
		for range 2 {
			l.goesOn(t, 100)
			srv.Kill()
			srv.Restart(t)
		}
		l.goesOn(t, 100)
		l.finish(t)
	})
}

// TestFailoverUnderLoad promotes a synchronous standby when its primary has died.
func TestFailoverUnderLoad(t *testing.T) {
	t.Parallel()
	underRace(t)
	primary := testserver.StartPostgres(t, testserver.PostgresOptions{})
	config, err := pgx.ParseConfig(primary.DSN())
	require.NoError(t, err)
	var leader atomic.Value // the address of the server that takes writes
	leader.Store(primary.Addr())
	config.DialFunc = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, leader.Load().(string))
	}
	s := &site{Kind: "postgres", Server: true, DSN: primary.DSN(), Folder: t.TempDir(), db: stdlib.OpenDB(*config)}
	t.Cleanup(func() { require.NoError(t, s.db.Close()) })
	s.prepare(t)
	standby := primary.StartReplica(t, "standby")
	primary.Query(t, `ALTER SYSTEM SET synchronous_standby_names = 'standby'`)
	primary.Query(t, `SELECT pg_reload_conf()`)
	until(t, "the standby is synchronous", func() bool {
		return strings.Contains(primary.Query(t, `SELECT sync_state FROM pg_stat_replication`), "sync")
	})

	l := startLoad(t, s, s.db)
	l.goesOn(t, 200)
	primary.Kill()
	standby.Promote(t)
	leader.Store(standby.Addr())
	l.goesOn(t, 200)
	l.finish(t)
}

// TestBadNetwork has drainers behind a network that fails in every way.
func TestBadNetwork(t *testing.T) {
	t.Parallel()
	underRace(t)
	servers(t, func(t *testing.T, srv server, s *site) {
		proxy := testserver.StartProxy(t, srv.Addr())
		through, err := sql.Open(s.driver(), strings.Replace(s.DSN, srv.Addr(), proxy.Addr(), 1))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, through.Close()) })
		l := startLoad(t, s, through)
		l.goesOn(t, 50)
		for _, fault := range []func(){
			proxy.Cut,
			func() { proxy.BlackHole(); elapse(3 * matrixOptions.Lease / 2) },
			proxy.BlackHole,
			func() { proxy.HalfOpen(); elapse(3 * matrixOptions.Lease / 2) },
			proxy.HalfOpen,
			func() { proxy.SetLatency(5 * time.Millisecond) },
			proxy.Cut,
		} {
			fault()
			elapse(50 * time.Millisecond)
			proxy.Heal()
			l.goesOn(t, 50)
		}
		proxy.SetLatency(0)
		l.finish(t)

		// What Run waits for when nothing answers any more has an end.
		for name, fault := range map[string]func(){"black hole": proxy.BlackHole, "half open": proxy.HalfOpen} {
			s.addSome(t, 2)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			h := hold(new(catcher))
			go func() { ended <- s.box(t, matrixOptions.options()).Run(ctx, through, h) }()
			<-h.entered
			fault()
			stop()
			began := time.Now()
			close(h.release)
			select {
			case err := <-ended:
				require.NoError(t, err)
			case <-time.After(time.Minute):
				require.FailNow(t, "Run does not end in a "+name)
			}
			t.Logf("%s: Run ended %.1f leases after its context", name, time.Since(began).Seconds()/matrixOptions.Lease.Seconds())
			proxy.Heal()
			until(t, "the lease has ended", func() bool {
				_, err := s.box(t, outbox.Options{}).Drain(t.Context(), s.db, new(catcher))
				require.True(t, err == nil || errors.Is(err, outbox.ErrLeased), "%v", err)
				return err == nil
			})
		}
	})
}
