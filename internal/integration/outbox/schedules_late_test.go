//go:build unix

package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// lateStatement: the server works on the acknowledgement of a drainer while that
// is killed or frozen, and while its successor finds that the same messages fail.
func lateStatement(t *testing.T, s *site, kill bool) {
	s.addSome(t, 1)
	p := start(t, orders{Site: *s, Options: matrixOptions, Drain: true, Publish: -1, Gate: &gate{Text: textAck}})
	p.hear(t, 1, saidStopped)
	row := s.begin(t, nil)
	var id int64
	require.NoError(t, row.QueryRowContext(t.Context(), `SELECT id FROM outbox_messages ORDER BY id LIMIT 1 FOR UPDATE`).Scan(&id))
	p.proceed(t)
	s.someoneWaits(t)
	if kill {
		p.kill()
	} else {
		p.signal(t, syscall.SIGSTOP)
	}

	file, err := s.file()
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	deliver := deliverTo(file, 0)
	var calls atomic.Int32
	h := hold(outbox.PublisherFunc(func(ctx context.Context, m outbox.Message) error {
		if calls.Add(1) <= int32(matrixOptions.Batch) {
			return outbox.RetryAfter(errors.New("the successor fails"), 0)
		}
		return deliver(ctx, m)
	}))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.box(t, matrixOptions.options()).Run(ctx, s.db, h) }()
	if s.Kind == "postgres" {
		<-h.entered // MySQL lets nobody take over while the statement runs
	}
	require.NoError(t, row.Rollback())
	until(t, "the statement is done", func() bool {
		return s.count(t, fmt.Sprintf(`SELECT count(*) FROM outbox_messages WHERE id = %d`, id)) == 0
	})
	<-h.entered
	close(h.release)
	s.settled(t)
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	p.kill()
	stop()
	require.NoError(t, <-ended)
	s.check(t)
}
