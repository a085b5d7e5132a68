// Package postgres is the PostgreSQL dialect of package outbox. It is SQL text
// only and imports no driver; it is tested with github.com/jackc/pgx/v5/stdlib
// and github.com/lib/pq, and needs PostgreSQL 14 (2021) or newer.
//
// # How to open the database
//
// The pool that the application has will do. Add works in a transaction of any
// isolation level. The drainer's statements are meant for READ COMMITTED, the
// default; under the stricter levels they are right too, and repeated now and
// then.
//
// A drainer with a pool of its own may do without waiting for the disk:
//
//	postgres://…/db?options=-c%20synchronous_commit%3Doff%20-c%20jit%3Doff
//
// What it then loses in a crash of the server are its last acknowledgements, and
// the messages are delivered again. Do not use this if transactions that Add are
// asynchronous as well: ids of which nothing has reached the disk are given
// again after a crash. jit matters for backlogs of ten million and more, where
// the planner believes that compiling a statement would pay.
//
// Nothing here needs a session: no LISTEN, no advisory lock, no temporary table.
// So everything works behind PgBouncer in transaction mode, if prepared
// statements do (PgBouncer 1.21, or default_query_exec_mode=exec with pgx).
//
// # Schema and permissions
//
// The tables are made in the first schema of the search_path, and found by it.
// Migrate needs CREATE there. After it, who adds needs INSERT on outbox_messages
// alone. Who drains needs SELECT, INSERT, UPDATE and DELETE on all tables named
// outbox_…, SELECT on the sequence outbox_messages_id_seq, and for Rotate also
// TRUNCATE on the archives.
//
// The tables of the queue have no statistics on their columns, and begin with
// some empty pages that VACUUM keeps: what the planner learns about a queue is
// wrong a second later. Leave that as it is, and do not add indexes to
// outbox_messages: each costs the business transaction.
//
// # Order
//
// Ids come from an identity column with CACHE 1, so they grow in the order of
// the Adds, and they are read in one snapshot, in order of id. A transaction that
// locks or updates the row of its key before it adds is therefore read after the
// one that did so before it. Do not raise the CACHE: sessions would keep ids in
// reserve.
//
// # What is held elsewhere
//
// A long transaction or an idle one, in this database or another, delays no
// message but its own. A snapshot that is held (pg_dump, a report, a standby
// with hot_standby_feedback, a replication slot that lags) keeps the server from
// removing what was delivered. The drainer then does not read over it again and
// again: it knows up to which id everything is decided, from the sequence and
// the locks on outbox_messages, and begins there. A prepared transaction that
// has added messages and is forgotten stops that, and shows in
// pg_prepared_xacts; messages are delivered all the same.
//
// Where it cannot know, it reads from the front: if outbox_messages is
// partitioned, inherited, unlogged, not a table, fed by logical replication, or
// its sequence is not as it was made. Rows whose id is not from the sequence
// (COPY with an id, OVERRIDING SYSTEM VALUE) may be noticed late.
//
// # Backups and copies
//
// pg_dump and a physical backup take the messages along. What is restored from
// them is delivered again if it had been delivered since, and a copy of a
// database that is opened for a test delivers what it finds: empty it first.
// After a failover to a standby that lagged, ids that were lost are given again
// to other messages; a consumer that drops what it has seen by ID needs
// synchronous replication. A subscriber of logical replication should not
// subscribe to the tables outbox_…: it would have the messages, too.
package postgres
