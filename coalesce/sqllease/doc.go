// Package sqllease is a [coalesce.Lease] on PostgreSQL, MySQL or MariaDB, over
// database/sql: of all processes one does the work of a key, is succeeded if it
// dies, and its late writes are refused inside their own transaction.
//
//	lease, err := sqllease.New(db, sqllease.PostgreSQL, sqllease.Options{TTL: 10 * time.Second})
//	...
//	err = lease.Migrate(ctx) // one small table
//	...
//	report, err := coalesce.Lead(ctx, lease, key, lookup,
//		func(ctx context.Context, token coalesce.Token) (Report, error) {
//			r, err := compute(ctx)
//			if err != nil {
//				return r, err
//			}
//			tx, err := shop.BeginTx(ctx, nil)
//			if err != nil {
//				return r, err
//			}
//			defer tx.Rollback()
//			if err := insert(ctx, tx, r); err != nil {
//				return r, err
//			}
//			if err := lease.Fence(ctx, tx, key, token); err != nil { // last
//				return r, err
//			}
//			return r, tx.Commit()
//		})
//
// # When to use it
//
// When the result belongs into that database, or there is no Redis. A lease
// costs a connection while it is held and some round trips; those that wait ask
// again and again. For many leases a second, and results that are cached rather
// than kept, take package redislease.
//
// # How it works
//
// The lease is a lock that the server ties to a session: an advisory lock in
// PostgreSQL, GET_LOCK in MySQL and MariaDB. No row says who holds it and until
// when, so none can be wrong. When the session ends, the lock is free. A process
// that is killed closes its connections, and is succeeded at once.
//
// A process that is frozen or cut off closes nothing. Therefore the session tells
// the server to end it when it has been idle for the time to live
// (idle_session_timeout, wait_timeout), and the holder sends a small query at
// each third of that time. Whoever does not get one through loses the session,
// and with it the lock; nobody has to decide that somebody else is dead.
//
// Those that wait ask whether the lock is free, with growing pauses, and hold no
// connection in between: waiters that held the connections of a pool could leave
// none for the work that they wait for.
//
// # Late holders, and which isolation they need
//
// A lease does not stop its former holder, which may have been paused between
// its last look at the lease and its write. Each grant therefore writes a new
// token into the table, and [Lease.Fence] asks for it inside the transaction
// that writes the result:
//
//   - It locks the row of the key against the next grant until the transaction
//     ends. A successor that acquires meanwhile waits for the commit or the
//     rollback, and so finds a result that was committed.
//   - It reads what was committed last, and not what the transaction's snapshot
//     shows. If there has been another grant, it returns [coalesce.ErrFenced].
//
// This holds at every isolation level. At REPEATABLE READ and SERIALIZABLE of
// PostgreSQL (and with innodb_snapshot_isolation of MariaDB), a transaction that
// began before the next grant gets a serialization failure in the place of
// ErrFenced; it cannot commit either. Lead does not begin again for that one, so
// prefer READ COMMITTED.
//
// A holder that is frozen between Fence and Commit would keep its successor
// waiting. In PostgreSQL Fence bounds that for this transaction, by
// idle_in_transaction_session_timeout. MySQL has nothing of the kind: there
// Acquire gives up with an error after the time to live, and succeeds when the
// server ends the frozen session, after wait_timeout. MariaDB has
// idle_transaction_timeout: set it in the data source name of the pool whose
// transactions you fence.
//
// A holder that is frozen before Fence, and has written rows, keeps them locked:
// its successor gets the lease at once and then waits for the rows. Either set
// one of these timeouts in the data source name of that pool, in PostgreSQL as
// well, or, in PostgreSQL, call Fence first in the transaction. That is as safe;
// the successor then waits for the lease while the transaction lasts.
//
// # Connections
//
// Give the Lease a *sql.DB of its own, with as many connections as leases are
// held at once and one or two more. In a pool that it shares with the work,
// leases can take the last connection, and the work waits for ever for one.
//
// The sessions must be real ones. Poolers that give a session to several clients
// in turn, such as PgBouncer in its transaction and statement modes, break locks
// that belong to sessions. Acquire and the queries of the holder notice when
// they meet another session, and fail; do not count on it. The database must be
// the primary, and one server: locks are not replicated. With Galera and MySQL
// Group Replication all processes must use the same node. After a failover the
// locks are free and the holders' sessions gone. Tokens go on from the table,
// and are times besides, so that they grow even if its last rows are lost.
//
// # Keys
//
// A key is any text; its hash is what the server sees. In PostgreSQL a lock has
// 64 bits. Two keys with the same ones exclude each other, which is slow and
// not wrong: with n keys held at once that happens with probability n²/2^65.
// Tokens have the whole hash, SHA-256.
//
// The table gets a row for each key that was ever held. The token of a grant is
// at least its time in microseconds since 1970, so the old ones are
//
//	DELETE FROM evenkeel_lease WHERE token < 1e6 * EXTRACT(EPOCH FROM now() - INTERVAL '1 day') -- PostgreSQL
//	DELETE FROM evenkeel_lease WHERE token < 1e6 * UNIX_TIMESTAMP(NOW() - INTERVAL 1 DAY)       -- MySQL
//
// which is safe at any time: without a row Fence refuses, and a next token is
// greater than the last since time has passed.
package sqllease
