package main

import (
	"context"
	"database/sql"
	"errors"
)

// beforeCommit sends inside the transaction, so that nothing commits that was not
// sent. It also holds the lock of the order for as long as the broker takes.
type beforeCommit struct {
	idle
	*shop
}

func (*beforeCommit) name() string { return "send before the commit" }
func (*beforeCommit) lesson() string {
	return "A rollback or a crash takes the change back, and nothing takes the event back."
}

func (w *beforeCommit) open(_ context.Context, s *shop) error {
	w.shop = s
	return nil
}

func (w *beforeCommit) commit(ctx context.Context, r request, crash bool) error {
	_, err := w.change(ctx, r, func(_ *sql.Tx, e event) error {
		w.broker.take(e)
		if crash {
			return errCrash // the database rolls back what a dead process began
		}
		return nil
	})
	if errors.Is(err, errCrash) {
		return nil
	}
	return err
}

var errCrash = errors.New("crash")
