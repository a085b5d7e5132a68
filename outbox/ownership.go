package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Every drainer has a lease with an epoch, and each bucket of keys belongs to
// at most one epoch. Whatever a drainer writes is refused once its lease is
// gone, and leases never come back: a drainer that slept through its lease (a
// suspended laptop, a stopped process, a long pause) may publish messages again,
// but cannot acknowledge, postpone or bury what another one is working on.
//
// Leases end by the clock of the database. The row of outbox_state makes those
// who change leases or buckets take turns.

// A claim is what a drainer owns.
type claim struct {
	epoch   int64
	buckets []int // in order
	of      int   // how many there are
}

// errOthers says that somebody else is at work.
var errOthers = errors.New("outbox: others are at work")

// A tenure is who owns what, as a transaction has read it.
type tenure struct {
	leases []Lease
	owners []int64 // epoch by bucket
}

// state reads the newest epoch, and which archive is in use and for how long.
func (s *sqlStore) state(ctx context.Context, q querier) (newest int64, archive int, since time.Duration, err error) {
	var us int64
	err = q.QueryRowContext(ctx, s.sql.State).Scan(&newest, &archive, &us)
	return newest, archive, time.Duration(us) * time.Microsecond, err
}

// ownership reads all leases, also those that have ended, and who owns each
// bucket.
func (s *sqlStore) ownership(ctx context.Context, q querier) ([]Lease, []int64, error) {
	var leases []Lease
	var l Lease
	var us, epoch int64
	err := s.each(ctx, q, s.sql.Leases, nil, []any{&l.Epoch, &l.Owner, &us}, func() {
		l.Left = time.Duration(us) * time.Microsecond
		leases = append(leases, l)
	})
	if err != nil {
		return nil, nil, err
	}
	owners := make([]int64, s.sql.Buckets)
	var bucket int
	err = s.each(ctx, q, s.sql.Owners, nil, []any{&bucket, &epoch}, func() {
		if bucket >= 0 && bucket < len(owners) {
			owners[bucket] = epoch
		}
	})
	return leases, owners, err
}

func (s *sqlStore) join(ctx context.Context, owner string, d time.Duration, alone bool) (c claim, err error) {
	err = s.balance(ctx, 1, func(tx *sql.Tx, newest int64) (int64, error) {
		_, err := s.exec(ctx, tx, s.sql.Join, newest, owner, d.Microseconds())
		return newest, err
	}, alone, &c)
	return c, err
}

func (s *sqlStore) rebalance(ctx context.Context, epoch int64, d time.Duration) (c claim, err error) {
	err = s.balance(ctx, 0, func(tx *sql.Tx, _ int64) (int64, error) {
		return epoch, s.fence(ctx, tx, epoch, d)
	}, false, &c)
	return c, err
}

// balance runs a transaction that makes sure of our lease, clears away those
// that have ended, and then gives us what is our share.
func (s *sqlStore) balance(ctx context.Context, add int, enter func(tx *sql.Tx, newest int64) (int64, error), alone bool, c *claim) error {
	return s.retryBusy(ctx, func() error {
		return s.inTx(ctx, func(tx *sql.Tx) error {
			if _, err := s.exec(ctx, tx, s.sql.LockState, add); err != nil {
				return err
			}
			newest, _, _, err := s.state(ctx, tx)
			if err != nil {
				return err
			}
			epoch, err := enter(tx, newest)
			if err != nil {
				return err
			}
			for _, query := range []string{s.sql.Expire, s.sql.Free} {
				if _, err := s.exec(ctx, tx, query); err != nil {
					return err
				}
			}
			var t tenure
			if t.leases, t.owners, err = s.ownership(ctx, tx); err != nil {
				return err
			}
			if alone && len(t.leases) > 1 {
				return fmt.Errorf("%w: %s", errOthers, t.leases[0].Owner)
			}
			return s.assign(ctx, tx, epoch, t, c)
		})
	})
}

// assign gives up and takes buckets until we have our share, as far as there
// are free ones.
func (s *sqlStore) assign(ctx context.Context, tx *sql.Tx, epoch int64, t tenure, c *claim) error {
	*c = claim{epoch: epoch, of: len(t.owners)}
	share := t.share(epoch)
	for bucket, owner := range t.owners {
		if owner == epoch {
			c.buckets = append(c.buckets, bucket)
		}
	}
	for ; len(c.buckets) > share; c.buckets = c.buckets[:len(c.buckets)-1] {
		if _, err := s.exec(ctx, tx, s.sql.Assign, 0, c.buckets[len(c.buckets)-1]); err != nil {
			return err
		}
	}
	for bucket, owner := range t.owners {
		if owner == 0 && len(c.buckets) < share {
			if _, err := s.exec(ctx, tx, s.sql.Assign, epoch, bucket); err != nil {
				return err
			}
			c.buckets = append(c.buckets, bucket)
		}
	}
	slices.Sort(c.buckets)
	return nil
}

// share is how many buckets an epoch should have. All drainers agree on it: the
// older ones have those that are left over.
func (t *tenure) share(epoch int64) int {
	live, place := 0, 0
	for _, l := range t.leases {
		if l.Left <= 0 {
			continue
		}
		if l.Epoch < epoch {
			place++
		}
		live++
	}
	live = max(live, 1)
	share := len(t.owners) / live
	if place < len(t.owners)%live {
		share++
	}
	return share
}

// unbalanced reports whether epoch should rebalance: whether it has too much, or
// could take something.
func (t *tenure) unbalanced(epoch int64) bool {
	held := map[int64]bool{0: false}
	for _, l := range t.leases {
		held[l.Epoch] = l.Left > 0
	}
	mine, free := 0, 0
	for _, owner := range t.owners {
		if owner == epoch {
			mine++
		} else if !held[owner] {
			free++
		}
	}
	share := t.share(epoch)
	return mine > share || mine < share && free > 0
}

func (s *sqlStore) renew(ctx context.Context, epoch int64, d time.Duration) error {
	return s.retryBusy(ctx, func() error { return s.fence(ctx, s.db, epoch, d) })
}

func (s *sqlStore) fence(ctx context.Context, q querier, epoch int64, d time.Duration) error {
	n, err := s.exec(ctx, q, s.sql.Renew, d.Microseconds(), epoch)
	if err == nil && n == 0 {
		err = errFenced
	}
	return err
}

func (s *sqlStore) leave(ctx context.Context, epoch int64) error {
	return s.retryBusy(ctx, func() error {
		return s.inTx(ctx, func(tx *sql.Tx) error {
			if _, err := s.exec(ctx, tx, s.sql.LockState, 0); err != nil {
				return err
			}
			if _, err := s.exec(ctx, tx, s.sql.Leave, epoch); err != nil {
				return err
			}
			_, err := s.exec(ctx, tx, s.sql.Free)
			return err
		})
	})
}

// A view is what others may have changed.
type view struct {
	unbalanced bool
	paused     []string
	parked     bool // some key is
	archive    int
}

func (s *sqlStore) look(ctx context.Context, epoch int64) (v view, err error) {
	err = s.retryBusy(ctx, func() error {
		v = view{}
		var t tenure
		var err error
		if t.leases, t.owners, err = s.ownership(ctx, s.db); err != nil {
			return err
		}
		if !slices.ContainsFunc(t.leases, func(l Lease) bool { return l.Epoch == epoch }) {
			return errFenced
		}
		v.unbalanced = t.unbalanced(epoch)
		var topic string
		if err := s.each(ctx, s.db, s.sql.Paused, nil, []any{&topic}, func() { v.paused = append(v.paused, topic) }); err != nil {
			return err
		}
		if err := s.db.QueryRowContext(ctx, s.sql.AnyParked).Scan(&v.parked); err != nil {
			return err
		}
		_, v.archive, _, err = s.state(ctx, s.db)
		return err
	})
	return v, err
}
