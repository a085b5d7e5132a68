package sqllease_test

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/sqllease"
)

// The report of a day is computed by one process of the fleet. If that one is
// paused for too long, another computes it, and the insert of the first is
// rolled back.
func ExampleLease_Fence() {
	ctx := context.Background()
	var shop, leases *sql.DB // two pools of one database, from sql.Open

	lease, err := sqllease.New(leases, sqllease.PostgreSQL, sqllease.Options{TTL: 10 * time.Second})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := lease.Migrate(ctx); err != nil {
		fmt.Println(err)
		return
	}
	const key = "report of 2026-11-25"
	total, err := coalesce.Lead(ctx, lease, key,
		func(ctx context.Context) (total int64, found bool, err error) {
			err = shop.QueryRowContext(ctx, `SELECT total FROM reports WHERE name = $1`, key).Scan(&total)
			if err == sql.ErrNoRows {
				return 0, false, nil
			}
			return total, err == nil, err
		},
		func(ctx context.Context, token coalesce.Token) (total int64, err error) {
			tx, err := shop.BeginTx(ctx, nil)
			if err != nil {
				return 0, err
			}
			defer func() { _ = tx.Rollback() }() // does nothing after Commit
			if err := tx.QueryRowContext(ctx, `INSERT INTO reports SELECT $1, sum(price) FROM orders RETURNING total`, key).Scan(&total); err != nil {
				return 0, err
			}
			if err := lease.Fence(ctx, tx, key, token); err != nil {
				return 0, err // coalesce.ErrFenced if another process has taken over
			}
			return total, tx.Commit()
		})
	fmt.Println(total, err)
}
