package postgres

// A drainer must not remember "everything up to 41 is done" before it knows that
// 40 will never come, since transactions commit in another order than they were
// given their ids. Asking for the oldest running transaction answers that, and
// waits for every transaction of every database of the server. Asking for the
// locks answers it exactly:
//
//	h is the newest id that was given to anybody, V the transactions that hold
//	a ROW EXCLUSIVE lock on outbox_messages at a time after h was read. As soon
//	as each of V has been seen without it, every id up to h is decided: its row
//	is visible to each snapshot from then on, or to none.
//
// Why. Take an id i <= h.
//
//  1. Whoever was given i had the lock at that time. INSERT, COPY and MERGE lock
//     the table before they evaluate the default of a column: when the statement
//     is parsed, and again when a prepared one is executed. A lock is held to
//     the end of the transaction, or until the subtransaction that took it is
//     rolled back, and then its row is gone for good.
//  2. i was given before h was read, since the sequence ascends and no session
//     keeps numbers in reserve (CACHE 1). V was looked at after that. So
//     whoever was given i either is in V or had lost its lock by then.
//  3. A transaction gives up its locks after it has become visible: COMMIT first
//     writes (and waits for synchronous standbys), then leaves the list of
//     running transactions from which snapshots are made, and then releases
//     locks (CommitTransaction in xact.c). COMMIT PREPARED keeps the same order
//     (FinishPreparedTransaction in twophase.c). So from the time at which its
//     lock is seen to be gone, i is decided for every snapshot that is taken
//     later.
//  4. pg_locks is read without stopping anybody (GetLockStatusData in lock.c):
//     first the locks that each session keeps for itself (fast path), session
//     by session, then the shared table as a whole. Locks move from the former
//     to the latter only, and are entered there before they are struck off. So
//     one that is held all the while is seen at least once.
//  5. PREPARE TRANSACTION moves the lock to the shared table, and there from the
//     session to the prepared transaction, without a moment in between. pid is
//     NULL from then on. It keeps its name (virtualtransaction) until the server
//     is restarted, and is called -1/xid after that (before 14.1, always). That
//     is why, as long as V is not empty, every prepared transaction belongs to
//     it whose name begins with "-": it may be a member under its new name.
//     Those that are not only delay the answer.
//  6. A name is not used again while the server runs. After a crash, a new
//     transaction may have the name of a member, and delays the answer.
//
// Savepoints: the id of a subtransaction that was rolled back will never have a
// row, so it does no harm that its lock is gone while the transaction goes on.
// The ids that the transaction is given later are greater than h.
//
// What it does not cover are rows whose id is not from the sequence: those of
// OVERRIDING SYSTEM VALUE, of COPY with an id, and of logical replication.
// Neither does it outlive the sequence: an id is only sure not to be given again
// after a crash if the commit of a transaction with this or a later id has
// reached the disk, and after a failover, if it has reached the standby.
//
// The number is read into a materialized subquery, so that it is a copy: the row
// of a sequence is overwritten in place. The locks are read by a subquery that
// depends on it, so that they are read after it. Our own session is left out: it
// does not add messages and ask for the watermark in one transaction.
const watermark = `WITH newest AS MATERIALIZED (
	SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END AS id FROM ` + sequence + `
)
SELECT id, (
	SELECT coalesce(string_agg(DISTINCT virtualtransaction, ','), '') FROM pg_locks
	WHERE locktype = 'relation' AND relation = 'outbox_messages'::regclass
	AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
	AND mode = 'RowExclusiveLock' AND granted AND pid IS DISTINCT FROM pg_backend_pid()
	AND newest.id IS NOT NULL
) FROM newest`

// markable says which of the assumptions of the watermark does not hold.
const markable = `SELECT CASE
	WHEN t.relkind = 'p' THEN 'outbox_messages is partitioned, and rows are locked by partition'
	WHEN t.relkind <> 'r' THEN 'outbox_messages is not a table'
	WHEN t.relispartition OR EXISTS (SELECT FROM pg_inherits WHERE inhrelid = t.oid)
		THEN 'outbox_messages is part of another table, through which rows may come'
	WHEN EXISTS (SELECT FROM pg_inherits WHERE inhparent = t.oid) THEN 'outbox_messages has child tables, through which rows may come'
	WHEN t.relpersistence <> 'p' THEN 'outbox_messages is not logged, and ids begin anew after a crash'
	WHEN EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = t.oid) THEN 'outbox_messages has rows from logical replication'
	WHEN coalesce(a.attidentity, '') = '' THEN 'outbox_messages.id is not an identity column'
	WHEN s.seqrelid IS DISTINCT FROM to_regclass('` + sequence + `')
		THEN 'the sequence of outbox_messages.id is not ` + sequence + ` of the search_path'
	WHEN s.seqcache <> 1 THEN 'sessions keep ids in reserve: ` + sequence + ` has CACHE ' || s.seqcache || ', not 1'
	WHEN s.seqincrement < 1 OR s.seqcycle THEN 'ids do not ascend: ` + sequence + ` has INCREMENT ' || s.seqincrement ||
		CASE WHEN s.seqcycle THEN ' and CYCLE' ELSE '' END
	ELSE '' END
FROM pg_class t
LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attname = 'id' AND NOT a.attisdropped
LEFT JOIN pg_sequence s ON s.seqrelid = CASE WHEN a.attidentity <> '' THEN pg_get_serial_sequence('outbox_messages', 'id')::regclass END
WHERE t.oid = 'outbox_messages'::regclass`
