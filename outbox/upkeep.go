package outbox

import (
	"context"
	"database/sql"
	"time"
)

func (s *sqlStore) resume(ctx context.Context, paused []string) error {
	list := listOf(paused)
	return s.retryBusy(ctx, func() error {
		return s.inTx(ctx, func(tx *sql.Tx) error {
			for _, query := range []string{s.sql.ResumeKeys, s.sql.ResumeMessages} {
				if _, err := s.exec(ctx, tx, query, list); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// archives is how many take turns with Rotate.
const archives = 3

// purgeStep is how many archived messages one statement deletes: few enough to
// hold no locks for long.
const purgeStep = 1000

// upkeep deletes from the archives what was kept long enough. Of three archives
// that take turns, one is in use, one is kept, and one is empty or about to be:
// with a turn every keep/2 a message is kept for keep at least, and for one and
// a half at most.
//
// Where somebody else holds a lock it is tried again at the next look and not
// before, since a step, and so all messages, would wait for it.
func (s *sqlStore) upkeep(ctx context.Context, r Retention, keep time.Duration) (more bool, err error) {
	switch r {
	case Archive:
		n, err := s.exec(ctx, s.db, s.sql.PurgeArchive, keep.Microseconds(), purgeStep)
		return n >= purgeStep, err
	case Rotate:
		_, current, since, err := s.state(ctx, s.db)
		if err != nil || since < keep/2 {
			return false, err
		}
		return false, s.rotate(ctx, current)
	default:
		return false, nil
	}
}

// rotate empties the oldest archive and takes it into use. A drainer that has
// not noticed goes on with the one before, which is emptied in the turn after
// the next. A database that ends the transaction at the TRUNCATE has emptied an
// archive that nobody was using, and the next call goes on from there.
func (s *sqlStore) rotate(ctx context.Context, current int) error {
	next := (current + 1) % archives
	return s.inTx(ctx, func(tx *sql.Tx) error {
		if _, err := s.exec(ctx, tx, s.sql.LockState, 0); err != nil {
			return err
		}
		if _, now, _, err := s.state(ctx, tx); err != nil || now != current {
			return err // or somebody was faster
		}
		if _, err := s.exec(ctx, tx, s.sql.Rotate(next)); err != nil {
			return err
		}
		_, err := s.exec(ctx, tx, s.sql.Rotated, next, current)
		return err
	})
}
